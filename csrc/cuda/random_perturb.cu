// The kernels of random_perturb, compiled for every storage type.
#include "cuda/random_perturb.cuh"

namespace vaal {

#define VAAL_COMPILE(T)                                                                           \
  template int64_t random_perturb_workspace_bytes<T>(const LaunchPlan&, int64_t);                 \
  template void launch_random_perturb(const RandomPerturbArguments<T>&, const LaunchPlan&, void*, \
                                      Stream);
VAAL_FOR_STORAGE_TYPES(VAAL_COMPILE)

}  // namespace vaal
