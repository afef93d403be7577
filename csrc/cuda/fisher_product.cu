// The kernels of fisher_product, compiled for every storage type.
#include "cuda/fisher_product.cuh"

namespace vaal {

#define VAAL_COMPILE(T) \
  template void launch_fisher(const FisherArguments<T>&, const LaunchPlan&, Stream);
VAAL_FOR_STORAGE_TYPES(VAAL_COMPILE)

}  // namespace vaal
