// The steps of kl_row.cuh for rows that do not stay in registers, and for smoothing: every step
// reads the thread's columns anew, from shared memory, L2 or device memory. kl_stream.cuh reduces
// them over a block, kl_split.cuh over several. Formulas: csrc/math/pivot_kl.h and smoothed_kl.h.
//
// With smoothing, h = ∂value/∂q̃ is measured from h_t, t = argmax b, so that nothing cancels in the
// gradient of a saturated row, whichever class it is saturated at:
//   tilt = Σ_j (q_j/e^m)(h_t − h_j)        h_t − Σ q_i h_i = e^m·tilt
//   ∂value/∂b_j = keep·q_j·(h_j − h_t + e^m·tilt)        ∂value/∂b_t = keep·q_t·e^m·tilt
// (everything over e^2m) and likewise ∂value/∂a_j with p, ∂value/∂p̃ and t = argmax a.
#pragma once

#include "cuda/kl_arguments.cuh"
#include "cuda/kl_row.cuh"

namespace vaal {

// Step 3 over the row. value is over e^m without smoothing and plain with it.
template <class S>
struct KlLongTotals {
  S value = 0, peak = 0, tilt_q = 0, tilt_p = 0;
};

template <class S>
VAAL_DEVICE KlLongTotals<S> merge(const KlLongTotals<S>& x, const KlLongTotals<S>& y) {
  return {x.value + y.value, peak_of(x.peak, y.peak), x.tilt_q + y.tilt_q, x.tilt_p + y.tilt_p};
}

// A class with its smoothed terms (zeros without smoothing).
template <class S>
struct LongClass : PivotTerm<S> {
  Smoothed<S> smoothed;
};

// What steps 3 and 4 know of the whole row.
template <class T>
struct KlLongRow {
  using S = Scalar<T>;
  using M = CudaMath<S>;

  const KlArguments<T>& args;
  const Reference<S>& from;
  PivotRow<S> row;
  S U;                         // of Sums
  Smoothed<S> pivot;             // the pivot's own terms
  S top_h_q = 0, top_h_p = 0;  // h_t of both gradients

  // a and b: the row's first logits.
  VAAL_DEVICE KlLongRow(const KlArguments<T>& arguments, const Reference<S>& reference,
                        const Sums<S>& sums, const T* a, const T* b)
      : args(arguments), from(reference), row(row_of(reference, sums)), U(sums.U), pivot{0, 0, 0} {
    if (!args.smoothed) return;
    if (!from.wide) pivot = smoothed(row.inv_z, row.inv_zq, row.x_pivot);
    top_h_p = at(from.a_top, a, b).h_p;
    top_h_q = at(from.b_top, a, b).h_q;
  }

  VAAL_DEVICE Smoothed<S> smoothed(S p, S q, S x) const {
    return args.symmetric
               ? smoothed_term<M, true>(row.scale, p, q, x, args.keep, args.floor)
               : smoothed_term<M, false>(row.scale, p, q, x, args.keep, args.floor);
  }
  VAAL_DEVICE Smoothed<S> at(int j, const T* a, const T* b) const {
    return j == from.pivot
               ? pivot
               : class_of(j, to_scalar(load_one(a + j)), to_scalar(load_one(b + j))).smoothed;
  }

  VAAL_DEVICE LongClass<S> class_of(int j, S a, S b) const {
    LongClass<S> c{vaal::class_of(from, j, a, b), {0, 0, 0}};
    if (args.smoothed)
      c.smoothed = smoothed(row.scale * c.w * row.inv_z, row.scale * c.v() * row.inv_zq,
                            change_of(row, c));
    return c;
  }

  VAAL_DEVICE void absorb(KlLongTotals<S>& totals, const LongClass<S>& c) const {
    if (args.smoothed) {
      totals.value += c.smoothed.value;  // 0 at the pivot and where w = d = 0
      totals.tilt_q += weigh(c.v() * row.inv_zq, top_h_q - c.smoothed.h_q);
      totals.tilt_p += weigh(c.w * row.inv_z, top_h_p - c.smoothed.h_p);
    } else {
      totals.value += args.symmetric ? value_term_of<true>(row, c) : value_term_of<false>(row, c);
    }
  }

  // The pivot's share, once, when every thread's totals are merged. The pivot is argmax a unless
  // the row is wide; where it is not argmax b, m > 0 and the division is harmless.
  VAAL_DEVICE void complete(KlLongTotals<S>& totals) const {
    if (args.smoothed) {
      totals.value += pivot.value;
      if (!from.wide && from.pivot != from.b_top)
        totals.tilt_q += row.inv_zq * (top_h_q - pivot.h_q) / row.scale;
    } else {
      totals.value += args.symmetric ? value_pivot_of<true>(row, from)
                                     : value_pivot_of<false>(row, from);
    }
  }

  VAAL_DEVICE S value(const KlLongTotals<S>& totals) const {
    return args.smoothed ? totals.value : row.scale * totals.value;
  }
  // What of_q and of_p are to be multiplied with.
  VAAL_DEVICE S gradient_scale() const { return args.smoothed ? row.scale * row.scale : row.scale; }

  VAAL_DEVICE S of_q(int j, const LongClass<S>& c, const KlLongTotals<S>& totals) const {
    if (!args.smoothed)
      return args.symmetric ? grad_q_of<true>(row, from, j, c) : grad_q_of<false>(row, from, j, c);
    const bool is_pivot = j == from.pivot, is_top = j == from.b_top;
    const S h = is_pivot ? pivot.h_q : c.smoothed.h_q;
    const S lead = (is_top ? S(0) : h - top_h_q) + row.scale * totals.tilt_q;
    if (is_pivot) return args.keep * row.inv_zq * (is_top ? totals.tilt_q : lead / row.scale);
    return args.keep * weigh(c.v() * row.inv_zq, lead);
  }

  VAAL_DEVICE S of_p(int j, const LongClass<S>& c, const KlLongTotals<S>& totals) const {
    if (!args.smoothed)
      return args.symmetric ? grad_p_of<true>(row, from, U, j, c)
                            : grad_p_of<false>(row, from, U, j, c);
    if (j == from.pivot) return args.keep * row.inv_z * totals.tilt_p;
    const S lead = j == from.a_top ? S(0) : c.smoothed.h_p - top_h_p;
    return args.keep * weigh(c.w * row.inv_z, lead + row.scale * totals.tilt_p);
  }
};

// This thread's columns of one row, or of the part of it that its block works on.
template <class T>
struct KlColumns {
  using S = Scalar<T>;

  Columns<T> columns;
  const T* a;         // the part's first logit
  const T* b;
  int first;          // the class it belongs to
  SharedArray<Pack> cache;  // pack c of a and b at [2c·size + rank] and [(2c + 1)·size + rank]
  int cached;         // packs held there, per thread; each thread reads only what it wrote
  int size, rank;

  VAAL_DEVICE Pack load(const T* row, int c) const {
    return columns.load(row, c, filled<T>(S(-INFINITY)));
  }

  VAAL_DEVICE void fill_cache() const {
    for (int c = 0; c < cached; ++c) {
      const Pack pack_a = load(a, c), pack_b = load(b, c);
      cache.store((2 * c) * size + rank, pack_a);
      cache.store((2 * c + 1) * size + rank, pack_b);
    }
  }

  VAAL_DEVICE void read(int c, Pack& pack_a, Pack& pack_b) const {
    if (c < cached) {
      pack_a = cache.load((2 * c) * size + rank);
      pack_b = cache.load((2 * c + 1) * size + rank);
    } else {
      pack_a = load(a, c);
      pack_b = load(b, c);
    }
  }

  // f(class, a, b) for every item, blanks (-inf, -inf) past the end included, and after_pack(c)
  // when pack c is through; the next packs are on their way while f works. One item at a time:
  // f is long, and small code with few registers keeps more warps on the multiprocessor.
  template <class F, class AfterPack>
  VAAL_DEVICE void visit(F&& f, AfterPack&& after_pack) const {
    const int packs = columns.packs();
    Pack next_a{}, next_b{};
    if (packs > 0) read(0, next_a, next_b);
    for (int c = 0; c < packs; ++c) {
      Pack pack_a = next_a, pack_b = next_b;
      if (c + 1 < packs) read(c + 1, next_a, next_b);
#pragma unroll 1
      for (int i = 0; i < kPackItems<T>; ++i) {
        const S x = to_scalar(take<T>(pack_a)), y = to_scalar(take<T>(pack_b));
        f(first + columns.column(c, i), x, y);
      }
      after_pack(c);
    }
  }
  template <class F>
  VAAL_DEVICE void visit(F&& f) const {
    visit(f, [](int) {});
  }

  VAAL_DEVICE TopTwo<S> top() const {
    TopTwo<S> top;
    visit([&](int j, S x, S y) { top.absorb(j, x, y); });
    return top;
  }

  VAAL_DEVICE Normalisers<S> normalisers(const Reference<S>& from) const {
    Normalisers<S> sums;
    visit([&](int, S x, S y) { absorb(sums, from, x, y); });
    return sums;
  }

  VAAL_DEVICE Sums<S> sums(const Reference<S>& from) const {
    Sums<S> sums;
    visit([&](int j, S x, S y) { sums.absorb(from, class_of(from, j, x, y)); });
    return sums;
  }

  // With smoothing the peak needs the tilt, and so a step of its own.
  VAAL_DEVICE KlLongTotals<S> totals(const KlLongRow<T>& row) const {
    KlLongTotals<S> totals;
    const bool with_peak = row.args.direction && !row.args.smoothed;
    visit([&](int j, S x, S y) {
      const LongClass<S> c = row.class_of(j, x, y);
      row.absorb(totals, c);
      if (with_peak)
        totals.peak = peak_of(totals.peak, CudaMath<S>::abs(row.of_q(j, c, totals)));
    });
    return totals;
  }

  VAAL_DEVICE KlLongTotals<S> smoothed_peak(const KlLongRow<T>& row,
                                            const KlLongTotals<S>& totals) const {
    KlLongTotals<S> peak;
    visit([&](int j, S x, S y) {
      peak.peak = peak_of(peak.peak, CudaMath<S>::abs(row.of_q(
                                         j, row.class_of(j, x, y), totals)));
    });
    return peak;
  }

  // The gradients of this thread's columns and, from the one thread that writes it, the value of
  // the row. offset: of the part's first element in the tensors.
  VAAL_DEVICE void write(const KlLongRow<T>& row, const KlLongTotals<S>& totals, int64_t row_index,
                         int64_t offset, bool writes_value) const {
    const KlArguments<T>& args = row.args;
    if (args.value != nullptr && writes_value) args.value[row_index] = row.value(totals);
    if (args.grad_q == nullptr && args.grad_p == nullptr) return;
    const S upstream = args.direction
                           ? S(1)
                           : load_one(args.grad_value + row_index * args.grad_value_stride);
    T* const grad_q = args.grad_q == nullptr ? nullptr : args.grad_q + offset;
    T* const grad_p = args.grad_p == nullptr ? nullptr : args.grad_p + offset;
    const S divisor = totals.peak == 0 ? S(1) : totals.peak;
    const S factor = row.gradient_scale() * upstream;
    Pack out_q{}, out_p{};
    visit(
        [&](int j, S x, S y) {
          const LongClass<S> held = row.class_of(j, x, y);
          if (grad_q != nullptr) {
            const S g = row.of_q(j, held, totals);
            append(out_q, from_scalar<T>(args.direction ? g / divisor : g * factor));
          }
          if (grad_p != nullptr)
            append(out_p, from_scalar<T>(row.of_p(j, held, totals) * factor));
        },
        [&](int c) {
          if (grad_q != nullptr) columns.store(grad_q, c, out_q);
          if (grad_p != nullptr) columns.store(grad_p, c, out_p);
        });
  }
};

// Whether step 3 is needed at all.
template <class T>
VAAL_HD bool needs_totals(const KlArguments<T>& args) {
  return args.value != nullptr || args.smoothed;
}

}  // namespace vaal
