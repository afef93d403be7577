// The kernels of deepfool_step, compiled for every storage type.
#include "cuda/deepfool_step.cuh"

namespace vaal {

#define VAAL_COMPILE(T)                                                     \
  template int64_t deepfool_workspace_bytes<T>(const LaunchPlan&, int64_t); \
  template void launch_deepfool(const DeepfoolArguments<T>&, const LaunchPlan&, void*, Stream);
VAAL_FOR_STORAGE_TYPES(VAAL_COMPILE)

}  // namespace vaal
