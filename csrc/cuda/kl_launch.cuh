// From a plan to the launches of symmetric_kl, its backward and its direction. Those of long rows are
// in kl_long_launch.cuh.
#pragma once

#include "cuda/arguments.h"
#include "cuda/kl_registers.cuh"

namespace vaal {

template <Op kOp, class T>
void launch_kl(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace, Stream stream) {
  if (plan.path == Path::kStream || plan.path == Path::kSplit) {
    launch_kl_long_rows(args, plan, workspace, stream);
    return;
  }
  constexpr RegisterShape kShape = register_shape(kOp, sizeof(T));
  const auto kernel = plan.path == Path::kWarp ? kl_registers<kOp, T, kShape.many_packs, false>
                                               : kl_registers<kOp, T, kShape.many_packs, true>;
  launch(kernel, {plan.blocks, plan.block_threads, plan.shared_bytes, stream}, args,
         plan.threads_per_row);
}

}  // namespace vaal
