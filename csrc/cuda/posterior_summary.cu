// The kernels of posterior_summary, compiled for every storage type.
#include "cuda/posterior_summary.cuh"

namespace vaal {

#define VAAL_COMPILE(T)                                                    \
  template int64_t summary_workspace_bytes<T>(const LaunchPlan&, int64_t); \
  template void launch_summary(const SummaryArguments<T>&, const LaunchPlan&, void*, Stream);
VAAL_FOR_STORAGE_TYPES(VAAL_COMPILE)

}  // namespace vaal
