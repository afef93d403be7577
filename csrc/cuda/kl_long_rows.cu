// The stream and split paths of the three KL ops, compiled once for all of them.
#include "cuda/kl_long_launch.cuh"

namespace vaal {

template void launch_kl_long_rows(const KlArguments<float>&, const LaunchPlan&, void*, Stream);
template void launch_kl_long_rows(const KlArguments<double>&, const LaunchPlan&, void*, Stream);
template void launch_kl_long_rows(const KlArguments<Half>&, const LaunchPlan&, void*, Stream);
template void launch_kl_long_rows(const KlArguments<BFloat16>&, const LaunchPlan&, void*, Stream);

}  // namespace vaal
