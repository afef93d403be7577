// From a plan to the launches of the KL's stream and split paths.
#pragma once

#include "cuda/kl_smoothed.cuh"
#include "cuda/kl_split.cuh"

namespace vaal {

template <class T>
int64_t kl_workspace_bytes(const LaunchPlan& plan, int64_t rows) {
  return plan.path == Path::kSplit ? rows * plan.splits * int64_t{sizeof(KlPartial<Scalar<T>>)} : 0;
}

template <class T>
void launch_kl_long_rows(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace,
                         Stream stream) {
  const LaunchShape shape{plan.blocks, plan.block_threads, plan.shared_bytes, stream};
  if (args.smoothed) {  // on the stream path at every length
    launch(kl_smoothed<T>, shape, args, plan.threads_per_row, plan.cached_packs);
    return;
  }
  if (plan.path == Path::kStream) {
    launch(kl_stream<T>, shape, args, plan.cached_packs);
    return;
  }
  auto* const partials = static_cast<KlPartial<Scalar<T>>*>(workspace);
  const int part = split_part(plan, args.cols, kPackItems<T>);
  const auto step = [&](auto kernel) { launch(kernel, shape, args, plan.splits, part, partials); };
  step(kl_split<KlStep::kTop, T>);
  step(kl_split<KlStep::kSums, T>);
  step(kl_split<KlStep::kTotals, T>);
  step(kl_split<KlStep::kWrite, T>);
}

}  // namespace vaal
