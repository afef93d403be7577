// The stream and split paths of the three KL ops, compiled once for all of them.
#include "cuda/kl_long_launch.cuh"

namespace vaal {

#define VAAL_COMPILE(T)                                               \
  template int64_t kl_workspace_bytes<T>(const LaunchPlan&, int64_t); \
  template void launch_kl_long_rows(const KlArguments<T>&, const LaunchPlan&, void*, Stream);
VAAL_FOR_STORAGE_TYPES(VAAL_COMPILE)

}  // namespace vaal
