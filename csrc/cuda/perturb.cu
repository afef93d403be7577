// The kernels of perturb, compiled for every storage type.
#include "cuda/perturb.cuh"

namespace vaal {

#define VAAL_COMPILE(T)                                                    \
  template int64_t perturb_workspace_bytes<T>(const LaunchPlan&, int64_t); \
  template void launch_perturb(const PerturbArguments<T>&, const LaunchPlan&, void*, Stream);
VAAL_FOR_STORAGE_TYPES(VAAL_COMPILE)

}  // namespace vaal
