// The steps of kl_row.cuh for any row: every step reads the thread's columns anew, from shared memory,
// L2 or device memory. kl_any_row reduces them over a group of threads. Formulas: csrc/math/pivot_kl.h and smoothed_kl.h.
//
// With smoothing (smoothed_kl.h) every class is measured from k = argmax a for ∂a and from r = argmax b
// for ∂b; mean = Σ own_j H_j, and
//   ∂value/∂own logit j = keep·own_j (H_j − mean)        over σ²: the mean of H over σ is σ·(mean over σ²)
#pragma once

#include "cuda/arguments.h"
#include "cuda/kl_row.cuh"

namespace vaal {

// Step 3 over the row. value is over e^m without smoothing and plain with it; the means are over σ².
template <class S>
struct KlLongTotals {
  S value = 0, peak = 0, mean_q = 0, mean_p = 0;
};

template <class S>
VAAL_DEVICE KlLongTotals<S> merge(const KlLongTotals<S>& x, const KlLongTotals<S>& y) {
  return {x.value + y.value, peak_of(x.peak, y.peak), x.mean_q + y.mean_q, x.mean_p + y.mean_p};
}

// A class with what smoothing makes of it (zeros without smoothing).
template <class S>
struct LongClass : PivotTerm<S> {
  S p, q;              // its posteriors over σ
  S value;             // its term of the divergence
  S slope_q, slope_p;  // H of both gradients over σ, where they are asked for
};

// What steps 3 and 4 know of the whole row. kSmoothing: whether there may be smoothing.
template <class T, bool kSmoothing>
struct KlLongRow {
  using S = Scalar<T>;
  using M = CudaMath<S>;

  const KlArguments<T>& args;
  const Reference<S>& from;
  PivotRow<S> row;
  S U;                  // of Sums
  S sigma = 1, up = 1;  // σ and e^m/σ
  // The pivot is the largest of b as well, and no class beside it is larger: its posteriors over σ may
  // be out of range, and it stands alone. Where it is not, it is a class like the others.
  bool apart = false;
  S pivot_value = 0;
  SmoothedPeak<S> p_peak{}, q_peak{};  // k for ∂a and r for ∂b
  S a_k = 0, b_r = 0;                  // their own logits
  S delta_k = 0, delta_r = 0;          // b − a there
  S p_ratio = 0, q_ratio = 0;          // q_k/p_k and p_r/q_r

  // a and b: the row's first logits.
  VAAL_DEVICE KlLongRow(const KlArguments<T>& arguments, const Reference<S>& reference,
                        const Sums<S>& sums, const T* a, const T* b)
      : args(arguments), from(reference), row(row_of(reference, sums)), U(sums.U) {
    if (!smoothed()) return;
    if (row.scale > S(1)) up = row.scale;
    else sigma = row.scale;
    b_r = to_scalar(load_one(b + from.b_top));
    apart = !from.wide && !(b_r > from.b);
    a_k = from.a;
    const S b_k = to_scalar(load_one(b + from.a_top));
    delta_k = b_k - a_k;
    Sides k{row.inv_z, row.inv_zq, up * row.x_pivot};
    if (from.wide) k = sides_of(from.a_top, a_k, vaal::class_of(from, from.a_top, a_k, b_k));
    const Smoothed<S> mixed_k = mixed(k);
    pivot_value = mixed_k.value;
    p_ratio = k.q / k.p;
    p_peak = {mixed_k.p, mixed_k.q, mixed_k.v, args.floor * k.x};
    q_peak = {mixed_k.q, mixed_k.p, -mixed_k.v, -p_peak.lean};
    if (apart) return;
    const S a_r = to_scalar(load_one(a + from.b_top));
    delta_r = b_r - a_r;
    const Sides r = sides_of(from.b_top, a_r, vaal::class_of(from, from.b_top, a_r, b_r));
    const Smoothed<S> mixed_r = mixed(r);
    q_ratio = r.p / r.q;
    q_peak = {mixed_r.q, mixed_r.p, -mixed_r.v, -args.floor * r.x};
  }

  VAAL_DEVICE bool smoothed() const { return kSmoothing && args.smoothed; }

  struct Sides {
    S p, q, x;
  };
  // a: the class's logit. A blank past the end of a part has the number of a class of the next part,
  // the pivot perhaps, and −inf.
  VAAL_DEVICE Sides sides_of(int j, S a, const PivotTerm<S>& c) const {
    if (j == from.pivot && !apart && a > -S(INFINITY))
      return {row.inv_z, row.inv_zq, up * row.x_pivot};
    return {up * c.w * row.inv_z, up * c.v() * row.inv_zq, up * change_of(row, c)};
  }
  // Of k and r: their posteriors are whole, also where k is apart (elsewhere σ = 1).
  VAAL_DEVICE Smoothed<S> mixed(const Sides& c) const { return mixed(c.p, c.q, c.x); }
  VAAL_DEVICE Smoothed<S> mixed(S p, S q, S x) const {
    return args.symmetric ? smoothed_class<M, true>(sigma, p, q, x, args.keep, args.floor)
                          : smoothed_class<M, false>(sigma, p, q, x, args.keep, args.floor);
  }
  template <bool kOwnIsP>
  VAAL_DEVICE S slope(const SmoothedPeak<S>& peak, const Smoothed<S>& c, S E) const {
    const S own = kOwnIsP ? c.p : c.q, other = kOwnIsP ? c.q : c.p, ratio = kOwnIsP ? c.v : -c.v;
    return args.symmetric
               ? smoothed_slope<M, true, kOwnIsP>(peak, sigma, own, other, ratio, E, args.keep)
               : smoothed_slope<M, false, kOwnIsP>(peak, sigma, own, other, ratio, E, args.keep);
  }

  VAAL_DEVICE LongClass<S> class_of(int j, S a, S b) const {
    LongClass<S> c{vaal::class_of(from, j, a, b), 0, 0, 0, 0, 0};
    if (!smoothed()) return c;
    const Sides sides = sides_of(j, a, c);
    c.p = sides.p;
    c.q = sides.q;
    const Smoothed<S> both = mixed(sigma * c.p, sigma * c.q, sides.x);
    c.value = both.value;
    const bool by_q = args.grad_q != nullptr, by_p = args.grad_p != nullptr;
    S E_p = 0;
    if (by_p || (by_q && apart)) {
      const S moved = from.wide ? moved_beside<M>(c.p, c.q, p_ratio, (b - a) - delta_k)
                                : up * c.d() * row.inv_zq;
      E_p = mixed_beside(p_peak, moved, M::expm1(a - a_k));
    }
    if (by_p) c.slope_p = slope<true>(p_peak, both, E_p);
    if (by_q) {
      const S E_q = apart ? -E_p
                          : mixed_beside(q_peak,
                                         moved_beside<M>(c.q, c.p, q_ratio, delta_r - (b - a)),
                                         M::expm1(b - b_r));
      c.slope_q = slope<false>(q_peak, both, E_q);
    }
    return c;
  }

  VAAL_DEVICE void absorb(KlLongTotals<S>& totals, const LongClass<S>& c) const {
    if (smoothed()) {
      totals.value += c.value;  // 0 at a pivot apart and at classes absent from both
      totals.mean_q += weigh(c.q, c.slope_q);
      totals.mean_p += weigh(c.p, c.slope_p);
    } else {
      totals.value += args.symmetric ? value_term_of<true>(row, c) : value_term_of<false>(row, c);
    }
  }

  // The pivot's share, once, when every thread's totals are merged.
  VAAL_DEVICE void complete(KlLongTotals<S>& totals) const {
    if (smoothed()) {
      if (apart) totals.value += pivot_value;
    } else {
      totals.value += args.symmetric ? value_pivot_of<true>(row, from)
                                     : value_pivot_of<false>(row, from);
    }
  }

  VAAL_DEVICE S value(const KlLongTotals<S>& totals) const {
    return smoothed() ? totals.value : row.scale * totals.value;
  }
  // What of_q and of_p are to be multiplied with.
  VAAL_DEVICE S gradient_scale() const { return smoothed() ? sigma * sigma : row.scale; }

  VAAL_DEVICE S of_q(int j, const LongClass<S>& c, const KlLongTotals<S>& totals) const {
    if (!smoothed())
      return args.symmetric ? grad_q_of<true>(row, from, j, c) : grad_q_of<false>(row, from, j, c);
    if (apart && j == from.pivot) return -args.keep * row.inv_zq * totals.mean_q;
    return args.keep * weigh(c.q, c.slope_q - sigma * totals.mean_q);
  }

  VAAL_DEVICE S of_p(int j, const LongClass<S>& c, const KlLongTotals<S>& totals) const {
    if (!smoothed())
      return args.symmetric ? grad_p_of<true>(row, from, U, j, c)
                            : grad_p_of<false>(row, from, U, j, c);
    if (apart && j == from.pivot) return -args.keep * row.inv_z * totals.mean_p;
    return args.keep * weigh(c.p, c.slope_p - sigma * totals.mean_p);
  }
};

// This thread's columns of one row, or of the part of it that its block works on.
template <class T, bool kSmoothing>
struct KlColumns {
  using Row = KlLongRow<T, kSmoothing>;
  using S = Scalar<T>;

  Columns<T> columns;
  const T* a;  // the part's first logit
  const T* b;
  int first;                // the class it belongs to
  SharedArray<Pack> cache;  // pack c of a and b at [2c·size + rank] and [(2c + 1)·size + rank]
  int cached;               // packs held there, per thread; each thread reads only what it wrote
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
  // when pack c is through. One item at a time: f is long, and small code with few registers keeps
  // more warps on the multiprocessor.
  template <class F, class AfterPack>
  VAAL_DEVICE void visit(F&& f, AfterPack&& after_pack) const {
#pragma unroll 1
    for (int c = 0; c < columns.packs(); ++c) {
      Pack pack_a, pack_b;
      read(c, pack_a, pack_b);
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

  // With smoothing the peak needs the mean, and so a second turn: `whole` is the row's totals of the
  // first, or blank.
  VAAL_DEVICE KlLongTotals<S> totals(const Row& row, const KlLongTotals<S>& whole,
                                     bool with_peak) const {
    KlLongTotals<S> totals;
    visit([&](int j, S x, S y) {
      const LongClass<S> c = row.class_of(j, x, y);
      row.absorb(totals, c);
      if (with_peak) totals.peak = peak_of(totals.peak, CudaMath<S>::abs(row.of_q(j, c, whole)));
    });
    return totals;
  }

  // The gradients of this thread's columns and, from the one thread that writes it, the value of
  // the row. offset: of the part's first element in the tensors.
  VAAL_DEVICE void write(const Row& row, const KlLongTotals<S>& totals, int64_t row_index,
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
    visit([&](int j, S x, S y) {
      const LongClass<S> held = row.class_of(j, x, y);
      if (grad_q != nullptr) {
        const S g = row.of_q(j, held, totals);
        append(out_q, from_scalar<T>(args.direction ? g / divisor : g * factor));
      }
      if (grad_p != nullptr) append(out_p, from_scalar<T>(row.of_p(j, held, totals) * factor));
    }, [&](int c) {
      if (grad_q != nullptr) columns.store(grad_q, c, out_q);
      if (grad_p != nullptr) columns.store(grad_p, c, out_p);
    });
  }
};

// How often a row is gone through for step 3. The peak belongs to the last turn.
template <class T>
VAAL_DEVICE int totals_turns(const KlArguments<T>& args) {
  if (args.direction && args.smoothed) return 2;
  return args.value != nullptr || args.smoothed ? 1 : 0;
}

// All steps of a row by the threads of a group. The other groups of its warp come here too; those that
// are not `wanted` go along without a row.
template <bool kSmoothing, class T, GroupKind kKind>
VAAL_DEVICE void kl_any_row(Group<kKind>& group, const KlArguments<T>& args, int64_t row_index,
                            const SharedArray<Pack>& cache, int cached_packs, bool wanted) {
  using S = Scalar<T>;
  const int64_t offset = row_index * args.cols;
  const KlColumns<T, kSmoothing> columns{
      {group.rank, group.size, wanted ? args.cols : 0, args.whole_packs},
      args.p + offset,
      args.q + offset,
      0,
      cache,
      cached_packs,
      group.size,
      group.rank};
  columns.fill_cache();
  Reference<S> from = reference_of(group.reduce(columns.top()), columns.b);
  if (group.any_beside(from.wide)) {
    const Normalisers<S> all = group.reduce(columns.normalisers(from));
    if (from.wide) normalise(from, all);
  }
  const KlLongRow<T, kSmoothing> row(args, from, group.reduce(columns.sums(from)), columns.a,
                                     columns.b);
  KlLongTotals<S> totals;
  const int turns = totals_turns(args);
#pragma unroll 1
  for (int turn = 1; turn <= turns; ++turn) {
    totals = group.reduce(columns.totals(row, totals, args.direction && turn == turns));
    row.complete(totals);
  }
  if (wanted) columns.write(row, totals, row_index, offset, group.rank == 0);
}

}  // namespace vaal
