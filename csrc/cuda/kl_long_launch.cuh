// From a plan to the launches of the KL's stream and split paths.
#pragma once

#include "cuda/kl_split.cuh"
#include "cuda/kl_stream.cuh"

namespace vaal {

template <class T>
int64_t kl_workspace_bytes(const LaunchPlan& plan, int64_t rows) {
  return plan.path == Path::kSplit ? rows * plan.splits * int64_t{sizeof(KlPartial<Scalar<T>>)} : 0;
}

template <class T>
void launch_kl_long_rows(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace,
                         Stream stream) {
  const LaunchShape shape{plan.blocks, plan.block_threads, plan.shared_bytes, stream};
  if (plan.path == Path::kStream) {
    launch(kl_stream<T>, shape, args, plan.threads_per_row, plan.cached_packs);
    return;
  }
  auto* const partials = static_cast<KlPartial<Scalar<T>>*>(workspace);
  const int part = split_part(plan, args.cols, kPackItems<T>);
  const auto step = [&](auto kernel, int turn) {
    launch(kernel, shape, args, plan.splits, part, turn, partials);
  };
  step(kl_split<KlStep::kTop, T>, 0);
  step(kl_split<KlStep::kSums, T>, 0);
  const int turns = totals_turns(args);
  for (int turn = 1; turn <= turns; ++turn) step(kl_split<KlStep::kTotals, T>, turn);
  step(kl_split<KlStep::kWrite, T>, turns + 1);
}

}  // namespace vaal
