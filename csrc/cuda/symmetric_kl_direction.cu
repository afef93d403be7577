// The kernels of symmetric_kl_direction for rows in registers, compiled for every storage type; those of long rows
// are in kl_long_rows.cu.
#include "cuda/kl_registers.cuh"

namespace vaal {

#define VAAL_COMPILE(T)                                                                        \
  template void launch_kl<Op::kSymmetricKlDirection>(const KlArguments<T>&, const LaunchPlan&, \
                                                     void*, Stream);
VAAL_FOR_STORAGE_TYPES(VAAL_COMPILE)

}  // namespace vaal
