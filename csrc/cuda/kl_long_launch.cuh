// From a plan to the launches of the KL's stream and split paths.
#pragma once

#include <algorithm>

#include "cuda/kl_smoothed.cuh"
#include "cuda/kl_split.cuh"

namespace vaal {

template <class T>
int64_t kl_workspace_bytes(const LaunchPlan& plan, int64_t rows) {
  using S = Scalar<T>;
  const size_t partial = std::max(sizeof(KlPartial<S>), sizeof(SmoothedPartial<S>));
  return plan.path == Path::kSplit ? rows * plan.splits * static_cast<int64_t>(partial) : 0;
}

template <class T>
void launch_smoothed(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace,
                     const LaunchShape& shape) {
  if (plan.path == Path::kStream) {
    launch(kl_smoothed_stream<T>, shape, args, plan.threads_per_row, plan.cached_packs);
    return;
  }
  auto* const partials = static_cast<SmoothedPartial<Scalar<T>>*>(workspace);
  const int part = split_part(plan, args.cols, kPackItems<T>);
  const auto step = [&](auto kernel, int turn) {
    launch(kernel, shape, args, plan.splits, part, turn, partials);
  };
  step(kl_smoothed_split<KlStep::kTop, T>, 0);
  step(kl_smoothed_split<KlStep::kSums, T>, 0);
  const int turns = totals_turns(args);
  for (int turn = 1; turn <= turns; ++turn) step(kl_smoothed_split<KlStep::kTotals, T>, turn);
  step(kl_smoothed_split<KlStep::kWrite, T>, turns + 1);
}

template <bool kSymmetric, class T>
void launch_plain(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace,
                  const LaunchShape& shape) {
  if (plan.path == Path::kStream) {
    launch(kl_stream<T, kSymmetric>, shape, args, plan.cached_packs);
    return;
  }
  auto* const partials = static_cast<KlPartial<Scalar<T>>*>(workspace);
  const int part = split_part(plan, args.cols, kPackItems<T>);
  launch(kl_split<KlStep::kTop, T, kSymmetric>, shape, args, plan.splits, part, partials);
  launch(kl_split<KlStep::kSums, T, kSymmetric>, shape, args, plan.splits, part, partials);
  launch(kl_split<KlStep::kTotals, T, kSymmetric>, shape, args, plan.splits, part, partials);
  launch(kl_split<KlStep::kWrite, T, kSymmetric>, shape, args, plan.splits, part, partials);
}

template <class T>
void launch_kl_long_rows(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace,
                         Stream stream) {
  const LaunchShape shape{plan.blocks, plan.block_threads, plan.shared_bytes, stream};
  if (args.smoothed) launch_smoothed(args, plan, workspace, shape);
  else if (args.symmetric) launch_plain<true>(args, plan, workspace, shape);
  else launch_plain<false>(args, plan, workspace, shape);
}

}  // namespace vaal
