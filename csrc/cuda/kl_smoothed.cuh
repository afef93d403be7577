// symmetric_kl, its backward and its direction with smoothing, by the steps of kl_any_row.cuh.
//
//   p, q [rows, cols] → value [rows]; grad_p, grad_q [rows, cols]
//
// kl_smoothed_stream: a group of threads a row. The first `cached_packs` packs of every thread stay in
// shared memory, so that device memory gives 2·E·cols a row once and takes 0, E·cols or 2·E·cols (E the
// size of an element). Columns beyond them are read again in each of the three to five steps, from L2
// where the rows in flight fit there. Rows of a few columns stay in the first-level cache between steps.
//
// kl_smoothed_split: several blocks a row, for few long rows. Every step is a kernel of its own: a block
// leaves its part's State in the workspace partials [rows, splits], and the next kernel begins by merging
// the row's (in the same order everywhere: no atomics). Bytes moved: 2·E·cols a row and step, from L2
// where all the rows fit there, and 1·E·cols or 2·E·cols written.
#pragma once

#include "cuda/kl_any_row.cuh"
#include "cuda/split_part.cuh"

namespace vaal {

template <class T>
VAAL_KERNEL(smoothed_threads(sizeof(T)))
kl_smoothed_stream(KlArguments<T> args, int threads_per_row, int cached_packs) {
  Group<GroupKind::kEither> group(threads_per_row);
  const SharedArray<Pack> cache(kReductionBytes);
  group.each_row(args.rows, [&](int64_t row, bool exists) {
    kl_any_row<true>(group, args, row, cache, cached_packs, exists);
  });
}


template <class S>
struct SmoothedPartial {
  TopTwo<S> top;
  Sums<S> sums;
  KlLongTotals<S> totals[2];   // of the first turn and of the second
  Normalisers<S> normalisers;  // of the whole row, in the row's first partial; wide rows only
};

// part: columns a block, a multiple of the items of a pack. turn: which turn of the totals this is, from
// 1 on; of kWrite one more than there are, and of the steps before them 0.
template <KlStep kStep, class T>
VAAL_KERNEL(kSplitThreads)
kl_smoothed_split(KlArguments<T> args, int splits, int part, int turn, SmoothedPartial<Scalar<T>>* workspace) {
  using S = Scalar<T>;
  using Partial = SmoothedPartial<S>;
  Group<GroupKind::kBlock> group(thread_count());
  for (int64_t block = block_index(); block < args.rows * splits; block += block_count()) {
    const SplitPart here(block, splits, part, args.cols);
    const int64_t row = here.row, offset = here.offset;
    const int split = here.split;
    const bool first_thread = group.rank == 0;
    Partial* const partials = workspace + row * splits;
    const auto columns_from = [&](int class_index, int count) {
      const int64_t at = row * args.cols + class_index;
      return KlColumns<T, true>{{group.rank, group.size, count, args.whole_packs},
                          args.p + at,
                          args.q + at,
                          class_index,
                          SharedArray<Pack>(0),  // no pack is cached
                          0,
                          group.size,
                          group.rank};
    };
    const KlColumns<T, true> columns = columns_from(split * part, here.length);

    if constexpr (kStep == KlStep::kTop) {
      const TopTwo<S> top = group.reduce(columns.top());
      if (first_thread) partials[split].top = top;
      continue;
    }

    Reference<S> from = reference_of(
        merged(group, partials, splits, [](const Partial& x) { return x.top; }),
        args.q + row * args.cols);
    if constexpr (kStep == KlStep::kSums) {
      if (from.wide) {  // rare: every block of the row goes through all of it
        const Normalisers<S> all = group.reduce(columns_from(0, args.cols).normalisers(from));
        normalise(from, all);
        if (split == 0 && first_thread) partials[0].normalisers = all;
      }
      const Sums<S> sums = group.reduce(columns.sums(from));
      if (first_thread) partials[split].sums = sums;
      continue;
    }

    if (from.wide) normalise(from, partials[0].normalisers);
    const KlLongRow<T, true> known(
        args, from, merged(group, partials, splits, [](const Partial& x) { return x.sums; }),
        args.p + row * args.cols, args.q + row * args.cols);
    KlLongTotals<S> totals;
    if (turn > 1) {
      totals = merged(group, partials, splits,
                      [&](const Partial& x) { return x.totals[turn - 2]; });
      known.complete(totals);
    }
    if constexpr (kStep == KlStep::kTotals) {
      const bool with_peak = args.direction && turn == totals_turns(args);
      totals = group.reduce(columns.totals(known, totals, with_peak));
      if (first_thread) partials[split].totals[turn - 1] = totals;
    } else {
      columns.write(known, totals, row, offset, split == 0 && first_thread);
    }
  }
}

}  // namespace vaal
