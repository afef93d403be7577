// symmetric_kl, its backward and its direction with several blocks a row: for few long rows.
//
//   p, q [rows, cols] → value [rows]; grad_p, grad_q [rows, cols]        no smoothing
//
// Every step of kl_plain.cuh is a kernel of its own: a block leaves its part's State in the workspace
// partials [rows, splits], and the next kernel begins by merging the row's (in the same order everywhere:
// no atomics). Bytes moved: 2·E·cols a row and step, from L2 where all the rows fit there, and E·cols or
// 2·E·cols written. A row that is not for these formulas is done once more, by its first block alone.
#pragma once

#include "cuda/kl_stream.cuh"
#include "cuda/split_part.cuh"

namespace vaal {

// A kernel does one of these.
enum class KlStep { kTop, kSums, kTotals, kWrite };

template <class S>
struct KlPartial {
  PlainTop<S> top;
  PlainSums<S> sums;
  PlainMoment<S> moment;
  PlainTotals<S> totals;
};

// part: columns a block, a multiple of the items of a pack.
template <KlStep kStep, class T>
VAAL_KERNEL_OF(kSplitThreads, sizeof(T) == 8 ? 2 : 3)
kl_split(KlArguments<T> args, int splits, int part, KlPartial<Scalar<T>>* workspace) {
  using S = Scalar<T>;
  using Partial = KlPartial<S>;
  Group<GroupKind::kBlock> group(thread_count());
  const SharedArray<Pack> no_cache(0);
  group.each_row(args.rows * splits, [&](int64_t block, bool) {
    const SplitPart here(block, splits, part, args.cols);
    const bool first_thread = group.rank == 0, first_block = here.split == 0;
    Partial* const partials = workspace + here.row * splits;
    const KlPlainPacks<T> steps(args, here.offset, here.length, group.size, group.rank, no_cache,
                                0);
    if constexpr (kStep == KlStep::kTop) {
      const PlainTop<S> top = group.reduce(steps.top());
      if (first_thread) partials[here.split].top = top;
      return;
    }
    const auto top = merged(group, partials, splits, [](const Partial& x) { return x.top; });
    if constexpr (kStep == KlStep::kSums) {
      PlainMoment<S> moment;
      const PlainSums<S> sums = group.reduce(steps.sums(top, moment));
      moment = group.reduce(moment);
      if (first_thread) {
        partials[here.split].sums = sums;
        partials[here.split].moment = moment;
      }
      return;
    }
    const auto sums = merged(group, partials, splits, [](const Partial& x) { return x.sums; });
    const auto moment = merged(group, partials, splits, [](const Partial& x) { return x.moment; });
    const PivotRow<S> row = row_of(sums, moment);
    if constexpr (kStep == KlStep::kTotals) {
      const PlainTotals<S> totals = group.reduce(
          steps.totals(top, row, upstream_of(args, here.row)));
      if (first_thread) partials[here.split].totals = totals;
      return;
    }
    const auto totals = merged(group, partials, splits, [](const Partial& x) { return x.totals; });
    if (!plain_enough(args, top, sums.reach, row, totals)) {
      if (first_block) kl_any_row<false>(group, args, here.row, no_cache, 0, true);
      return;
    }
    if (args.value != nullptr && first_block && first_thread) args.value[here.row] = totals.value;
    if (args.direction) steps.write(top, row, Quotient<S>(totals.peak));
  });
}

}  // namespace vaal
