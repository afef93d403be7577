// symmetric_kl, its backward and its direction with smoothing, by the steps of kl_any_row.cuh.
//
//   p, q [rows, cols] → value [rows]; grad_p, grad_q [rows, cols]
//
// A group of threads a row. The first `cached_packs` packs of every thread stay in shared memory, so that
// device memory gives 2·E·cols a row once and takes 0, E·cols or 2·E·cols (E the size of an element).
// Columns beyond them are read again in each of the three to five steps, from L2 where the rows in flight
// fit there. Rows of a few columns stay in the first-level cache between steps.
#pragma once

#include "cuda/kl_any_row.cuh"

namespace vaal {

template <class T>
VAAL_KERNEL(smoothed_threads(sizeof(T)))
kl_smoothed(KlArguments<T> args, int threads_per_row, int cached_packs) {
  Group<GroupKind::kEither> group(threads_per_row);
  const SharedArray<Pack> cache(kReductionBytes);
  group.each_row(args.rows, [&](int64_t row, bool exists) {
    kl_any_row<true>(group, args, row, cache, cached_packs, exists);
  });
}

}  // namespace vaal
