// One row of the divergence, cut into the pieces that the kernels share: what is reduced over the
// row, what each class adds to it, what is known in between. The formulas are in csrc/math.
//
//   a = p_logits[row, :]    b = q_logits[row, :]                                        [C] each
//
// 1. TopTwo: the two largest of a and of b, hence the pivot k = argmax a and m.
// 2. Sums:   R, V, D, T, U of pivot_kl.h; with them the PivotRow.
// 3. Totals: the value, and what the gradient needs besides (smoothing, direction).
// 4. The gradient of each class.
//
// Wide rows (m > 30: the argmax moved far away, the divergence is of order one) are computed from
// the two log-softmaxes directly. They fit the same four steps: with w = p, v = q, δ = log q − log p
// and no pivot at all, d = q − p, t = Λ = 0 and every formula of pivot_kl.h still holds.
#pragma once

#include <cmath>

#include "cuda/group.cuh"
#include "cuda/storage.cuh"
#include "math/smoothed_kl.h"

namespace vaal {

constexpr int kNoClass = 0x7FFFFFFF;
constexpr double kWideShift = 30.0;

// --- 1. The pivot --------------------------------------------------------------------------------
template <class S>
struct TopTwo {
  S a_first = S(-INFINITY), a_second = S(-INFINITY);
  S b_first = S(-INFINITY), b_second = S(-INFINITY);
  int a_index = kNoClass, b_index = kNoClass;  // ties: the smallest index

  // Classes come in ascending order. NaN is passed over here; the sums of step 2 meet it.
  VAAL_DEVICE void absorb(int j, S a, S b) {
    using M = CudaMath<S>;
    const bool a_wins = a > a_first, b_wins = b > b_first;
    a_second = a_wins ? a_first : M::max(a_second, a);
    a_first = a_wins ? a : a_first;
    a_index = a_wins ? j : a_index;
    b_second = b_wins ? b_first : M::max(b_second, b);
    b_first = b_wins ? b : b_first;
    b_index = b_wins ? j : b_index;
  }
};

template <class S>
VAAL_DEVICE TopTwo<S> merge(const TopTwo<S>& x, const TopTwo<S>& y) {
  using M = CudaMath<S>;
  const bool a_x = x.a_first > y.a_first || (x.a_first == y.a_first && x.a_index < y.a_index);
  const bool b_x = x.b_first > y.b_first || (x.b_first == y.b_first && x.b_index < y.b_index);
  TopTwo<S> both;
  both.a_first = a_x ? x.a_first : y.a_first;
  both.a_index = a_x ? x.a_index : y.a_index;
  both.a_second = M::max(a_x ? y.a_first : x.a_first, M::max(x.a_second, y.a_second));
  both.b_first = b_x ? x.b_first : y.b_first;
  both.b_index = b_x ? x.b_index : y.b_index;
  both.b_second = M::max(b_x ? y.b_first : x.b_first, M::max(x.b_second, y.b_second));
  return both;
}

// What the logits of a row are measured from.
template <class S>
struct Reference {
  S a, b;              // a_k and b_k; in a wide row max a and max b
  S a_shift, b_shift;  // m; in a wide row the logarithms of the two normalisers
  S gap;               // log of the ratio of the normalisers; 0 unless wide
  S level;             // δ at argmax a, where it is finite; 0 unless wide
  int a_top, b_top;    // argmax a and argmax b
  int pivot;           // k, or -1 in a wide row
  bool wide;
};

// top belongs to the row whose q logits start at b.
template <class T>
VAAL_DEVICE Reference<Scalar<T>> reference_of(const TopTwo<Scalar<T>>& top, const T* b) {
  using S = Scalar<T>;
  const int k = top.a_index == kNoClass ? 0 : top.a_index;
  const S a_k = top.a_first, b_k = to_scalar(load_one(b + k));
  const S best_b = top.b_index == k ? top.b_second : top.b_first;  // over j ≠ k
  const S m = CudaMath<S>::max(top.a_second - a_k, best_b - b_k);
  const int b_top = top.b_index == kNoClass ? 0 : top.b_index;
  if (m > S(kWideShift)) {
    const S level = (b_k - a_k) - (top.b_first - a_k);
    return {a_k, top.b_first, 0, 0, 0, level, k, b_top, -1, true};
  }
  const S shift = m > S(-INFINITY) ? m : S(0);  // C = 1, or nothing besides the pivot
  return {a_k, b_k, shift, shift, 0, 0, k, b_top, k, false};
}

// Σ e^(a − max a) and Σ e^(b − max b): wide rows only.
template <class S>
struct Normalisers {
  S a = 0, b = 0;
};

template <class S>
VAAL_DEVICE Normalisers<S> merge(const Normalisers<S>& x, const Normalisers<S>& y) {
  return {x.a + y.a, x.b + y.b};
}

template <class S>
VAAL_DEVICE void absorb(Normalisers<S>& sums, const Reference<S>& from, S a, S b) {
  sums.a += CudaMath<S>::exp(a - from.a);
  sums.b += CudaMath<S>::exp(b - from.b);
}

template <class S>
VAAL_DEVICE void normalise(Reference<S>& from, const Normalisers<S>& sums) {
  from.a_shift = CudaMath<S>::log(sums.a);
  from.b_shift = CudaMath<S>::log(sums.b);
  from.gap = from.b_shift - from.a_shift;
  from.level = from.level > S(-INFINITY) ? from.level - from.gap : S(0);
}

// --- 2. The sums ---------------------------------------------------------------------------------
// One class as the later steps see it. The pivot and classes where both logits are -inf (and the
// blanks that fill up a row) have w = v = d = δ = 0.
template <class S>
VAAL_DEVICE PivotTerm<S> class_of(const Reference<S>& from, int j, S a, S b) {
  constexpr S kNone = S(-INFINITY);
  const bool idle = j == from.pivot || (a == kNone && b == kNone);
  const S alpha = idle ? kNone : (a - from.a) - from.a_shift;
  const S beta = idle ? kNone : (b - from.b) - from.b_shift;
  const S delta = idle ? S(0) : ((b - a) - (from.b - from.a)) - from.gap;
  return pivot_term<CudaMath<S>>(alpha, beta, delta);
}

// U is of δ − level: where p is saturated at argmax a, S_p is as small as 1 − p there.
template <class S>
struct Sums {
  S R = 0, V = 0, D = 0, T = 0, U = 0;

  VAAL_DEVICE void absorb(const Reference<S>& from, const PivotTerm<S>& c) {
    R += c.w;
    V += c.v();
    D += c.d();
    T += weigh(c.v(), c.delta);
    U += weigh(c.w, c.delta - from.level);
  }
};

template <class S>
VAAL_DEVICE Sums<S> merge(const Sums<S>& x, const Sums<S>& y) {
  return {x.R + y.R, x.V + y.V, x.D + y.D, x.T + y.T, x.U + y.U};
}

template <class S>
VAAL_DEVICE PivotRow<S> row_of(const Reference<S>& from, const Sums<S>& sums) {
  if (from.wide) {
    PivotRow<S> row{};
    row.scale = row.inv_z = row.inv_zq = 1;
    row.mean_delta_q = row.mean_q_over = sums.T;
    row.mean_delta_p = row.mean_p_over = sums.U + from.level;
    return row;
  }
  // A pivot that is not finite makes the whole row NaN, also where no other class is there to.
  const S poison = (from.a - from.a) + (from.b - from.b);
  return pivot_row<CudaMath<S>>(from.a_shift, sums.R + poison, sums.V + poison, sums.D, sums.T,
                                sums.U);
}

// --- 3. and 4. without smoothing: everything over e^m --------------------------------------------
template <class S>
VAAL_DEVICE S change_of(const PivotRow<S>& row, const PivotTerm<S>& c) {
  return posterior_change(row, c.w, c.v(), c.d());
}

template <bool kSymmetric, class S>
VAAL_DEVICE S value_term_of(const PivotRow<S>& row, const PivotTerm<S>& c) {
  return value_term<CudaMath<S>, kSymmetric>(row, c.w, change_of(row, c), c.delta - row.log_ratio);
}

template <bool kSymmetric, class S>
VAAL_DEVICE S value_pivot_of(const PivotRow<S>& row, const Reference<S>& from) {
  return from.wide ? S(0) : value_pivot<CudaMath<S>, kSymmetric>(row);
}

template <bool kSymmetric, class S>
VAAL_DEVICE S grad_q_of(const PivotRow<S>& row, const Reference<S>& from, int j,
                        const PivotTerm<S>& c) {
  return j == from.pivot ? grad_q_pivot<kSymmetric>(row)
                         : grad_q_term<kSymmetric>(row, c.v(), change_of(row, c), c.delta);
}

// Forward: −p_j(u_j + KL) = −p_j(δ_j − S_p), because KL = −Σ p_i u_i = Λ − S_p. Taken from S_p, it
// cancels nowhere and needs no value. S_p is sums.U / Z (over e^m) but for the level.
template <bool kSymmetric, class S>
VAAL_DEVICE S grad_p_of(const PivotRow<S>& row, const Reference<S>& from, S U, int j,
                        const PivotTerm<S>& c) {
  const bool pivot = j == from.pivot;
  if constexpr (kSymmetric)
    return pivot ? grad_p_pivot<true>(row)
                 : grad_p_term<true>(row, c.w, change_of(row, c), c.delta);
  const S over = U * row.inv_z;
  return pivot ? row.inv_z * over
               : -weigh(c.w * row.inv_z, (c.delta - from.level) - row.scale * over);
}

// The larger of two magnitudes; NaN wins, so that it reaches the whole row.
template <class S>
VAAL_DEVICE S peak_of(S x, S y) {
  return x >= y || x != x ? x : y;
}

}  // namespace vaal
