// symmetric_kl, its backward and its direction with the row kept in registers between the steps.
//
//   p, q [rows, cols] → value [rows]; grad_p, grad_q [rows, cols]        no smoothing
//
// The formulas are in csrc/math/pivot_kl.h, the steps in kl_row.cuh. A thread loads its packs of
// both rows, all before the first is used, and turns every class into (w, v or d, δ): two elementary
// functions a class, whatever the number of steps.
// Bytes moved, E the size of an element:  forward 2·E·cols a row; backward and direction 3·E·cols
// (4·E·cols with both gradients). Nothing is read twice but one b_k a row, from the cache.
#pragma once

#include "cuda/arguments.h"
#include "cuda/kl_row.cuh"

namespace vaal {

template <class S>
struct KlTotals {
  S value = 0;  // over e^m
  S peak = 0;   // the largest magnitude of a gradient entry, over e^m
};

template <class S>
VAAL_DEVICE KlTotals<S> merge(const KlTotals<S>& x, const KlTotals<S>& y) {
  return {x.value + y.value, peak_of(x.peak, y.peak)};
}

// threads_per_row = 1 … 32: several rows a block; more: the block is the row.
// threads_per_row · kPacks · kPackItems<T> >= cols.
template <Op kOp, bool kSymmetric, class T, int kPacks, bool kBlock>
VAAL_KERNEL(kBlock ? register_shape(kOp, sizeof(T)).max_threads : kWarpPathThreads)
kl_registers(KlArguments<T> args, int threads_per_row) {
  using S = Scalar<T>;
  constexpr int kItems = kPackItems<T>;
  constexpr bool kValue = kOp != Op::kSymmetricKlBackward;
  constexpr bool kDirection = kOp == Op::kSymmetricKlDirection;
  constexpr bool kMoments = !kValue || (kDirection && kSymmetric);

  Group<kBlock ? GroupKind::kBlock : GroupKind::kLanes> group(threads_per_row);
  const int rows_per_block = kBlock ? 1 : thread_count() / threads_per_row;
  const int row_in_block = kBlock ? 0 : thread_index() / threads_per_row;
  const Columns<T> columns(group.rank, group.size, args.cols, args.whole_packs);
  const Pack blank = filled<T>(S(-INFINITY));

  // A group without a row leaves early: nobody's shuffles name its lanes.
  for (int64_t row = block_index() * rows_per_block + row_in_block; row < args.rows;
       row += block_count() * rows_per_block) {
    const int64_t offset = row * args.cols;
    const T* const a_row = args.p + offset;
    const T* const b_row = args.q + offset;

    Pack a[kPacks], b[kPacks];
    columns.load(a_row, 0, blank, a);
    columns.load(b_row, 0, blank, b);

    TopTwo<S> top;
#pragma unroll
    for (int c = 0; c < kPacks; ++c)
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        top.absorb(columns.column(c, i), to_scalar(unpack<T>(a[c], i)),
                   to_scalar(unpack<T>(b[c], i)));
    Reference<S> from = reference_of(group.reduce(top), b_row);
    if (from.wide) {  // the same for the whole group
      Normalisers<S> sums;
#pragma unroll
      for (int c = 0; c < kPacks; ++c)
#pragma unroll
        for (int i = 0; i < kItems; ++i)
          absorb(sums, from, to_scalar(unpack<T>(a[c], i)), to_scalar(unpack<T>(b[c], i)));
      normalise(from, group.reduce(sums));
    }

    PivotTerm<S> classes[kPacks][kItems];
    Sums<S> sums;
#pragma unroll
    for (int c = 0; c < kPacks; ++c)
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        classes[c][i] = class_of(from, columns.column(c, i), to_scalar(unpack<T>(a[c], i)),
                                 to_scalar(unpack<T>(b[c], i)));
        sums.absorb(from, classes[c][i]);
      }
    if constexpr (kMoments) {
      sums = group.reduce(sums);
    } else {
      const ShortSums<S> both = group.reduce(ShortSums<S>{sums.R, sums.V, sums.D});
      sums = {both.R, both.V, both.D, 0, 0};
    }
    const PivotRow<S> known = row_of(from, sums);

    KlTotals<S> totals;
    if constexpr (kValue) {
#pragma unroll
      for (int c = 0; c < kPacks; ++c)
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
          totals.value += value_term_of<kSymmetric>(known, classes[c][i]);
          if constexpr (kDirection)
            totals.peak = peak_of(totals.peak,
                                  CudaMath<S>::abs(grad_q_of<kSymmetric>(
                                      known, from, columns.column(c, i), classes[c][i])));
        }
      totals = group.reduce(totals);
      totals.value += value_pivot_of<kSymmetric>(known, from);
      if (group.rank == 0) args.value[row] = known.scale * totals.value;
    }
    if constexpr (kOp == Op::kSymmetricKl) continue;

    // Divided, not multiplied by 1/peak: the largest entry becomes 1 exactly, and a tiny peak has
    // no reciprocal.
    const S divisor = totals.peak == 0 ? S(1) : totals.peak;
    S factor = 1;
    if constexpr (!kDirection)
      factor = known.scale * load_one(args.grad_value + row * args.grad_value_stride);
#pragma unroll
    for (int c = 0; c < kPacks; ++c) {
      Pack out{};
      if (args.grad_q != nullptr) {
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
          const S g = grad_q_of<kSymmetric>(known, from, columns.column(c, i), classes[c][i]);
          put(out, i, from_scalar<T>(kDirection ? g / divisor : g * factor));
        }
        columns.store(args.grad_q + offset, c, out);
      }
      if (!kDirection && args.grad_p != nullptr) {
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
          const S g = grad_p_of<kSymmetric>(known, from, sums.U, columns.column(c, i),
                                            classes[c][i]);
          put(out, i, from_scalar<T>(g * factor));
        }
        columns.store(args.grad_p + offset, c, out);
      }
    }
  }
}

}  // namespace vaal
