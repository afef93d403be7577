// The kernels of fisher_direction, compiled for every storage type.
#include "cuda/fisher_direction.cuh"

namespace vaal {

#define VAAL_COMPILE(T) \
  template void launch_direction(const DirectionArguments<T>&, const LaunchPlan&, Stream);
VAAL_FOR_STORAGE_TYPES(VAAL_COMPILE)

}  // namespace vaal
