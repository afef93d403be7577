// symmetric_kl, its backward and its direction, a group of threads a row, in as many reads of the
// row as there are steps.
//
//   p, q [rows, cols] → value [rows]; grad_p, grad_q [rows, cols]        with or without smoothing
//
// The first `cached_packs` packs of every thread stay in shared memory, so that device memory
// gives 2·E·cols a row once and takes 0, E·cols or 2·E·cols (E the size of an element). Columns
// beyond them are read again in each of the three to five steps, from L2 where the rows in flight
// fit there. Rows of a few columns (smoothing only) stay in the first-level cache between steps.
#pragma once

#include "cuda/kl_long_rows.cuh"

namespace vaal {

template <class T>
VAAL_KERNEL(stream_threads(sizeof(T)))
kl_stream(KlArguments<T> args, int threads_per_row, int cached_packs) {
  using S = Scalar<T>;
  Group<GroupKind::kEither> group(threads_per_row);
  const int rows_per_block = thread_count() / threads_per_row;
  const int row_in_block = thread_index() / threads_per_row;
  const SharedArray<Pack> cache(kReductionBytes);

  for (int64_t row = block_index() * rows_per_block + row_in_block; row < args.rows;
       row += block_count() * rows_per_block) {
    const int64_t offset = row * args.cols;
    const KlColumns<T> columns{{group.rank, group.size, args.cols, args.whole_packs},
                               args.p + offset,
                               args.q + offset,
                               0,
                               cache,
                               cached_packs,
                               group.size,
                               group.rank};
    columns.fill_cache();
    Reference<S> from = reference_of(group.reduce(columns.top()), columns.b);
    if (from.wide) normalise(from, group.reduce(columns.normalisers(from)));
    const KlLongRow<T> known(args, from, group.reduce(columns.sums(from)), columns.a, columns.b);

    KlLongTotals<S> totals;
    const int turns = totals_turns(args);
#pragma unroll 1
    for (int turn = 1; turn <= turns; ++turn) {
      totals = group.reduce(columns.totals(known, totals, args.direction && turn == turns));
      known.complete(totals);
    }
    columns.write(known, totals, row, offset, group.rank == 0);
  }
}

}  // namespace vaal
