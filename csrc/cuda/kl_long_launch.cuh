// From a plan to the launches of the KL's stream and split paths.
#pragma once

#include "cuda/kl_launch.cuh"
#include "cuda/kl_stream.cuh"

namespace vaal {

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
  const auto step = [&](auto kernel) { launch(kernel, shape, args, plan.splits, part, partials); };
  step(kl_split<KlStep::kTop, T>);
  step(kl_split<KlStep::kSums, T>);
  if (needs_totals(args)) step(kl_split<KlStep::kTotals, T>);
  if (args.direction && args.smoothed) step(kl_split<KlStep::kSmoothedPeak, T>);
  step(kl_split<KlStep::kWrite, T>);
}

}  // namespace vaal
