// The divergence of two softmax rows where nothing is extreme: pivot_kl.h with m = 0.
//
//   w_j = e^(α_j)    d_j = w_j·expm1(δ_j)
//
// Two exponentials a class and no branch: the pivot is a class like any other, with w = 1 and d = δ = 0.
// Whether a row was of this kind is told by its results; one that was not (saturated, moved far, with −inf
// or NaN) is done again by the formulas of pivot_kl.h.
#pragma once

#include "math/pivot_kl.h"

namespace vaal {

// A value or a gradient below this may be of numbers below the range of w.
template <class S>
constexpr S kTiny = sizeof(S) == 4 ? S(1e-26) : S(1e-280);
// No logit may move farther than this against the pivot, for e^δ to be finite.
template <class S>
constexpr S kReach = sizeof(S) == 4 ? S(87) : S(708);
// Where Σ e^β exceeds e^30 the argmax has moved far; below the other bound, on t, Z_q = Z + D has
// cancelled.
constexpr double kFar = 1e13, kFallen = -0.9;

// e^kDigits is 1/ulp: what classes may be wrong by, times this, must lie below the row's result.
template <class S>
constexpr S kDigits = sizeof(S) == 4 ? S(16) : S(37);
// Where e^α leaves the range of normal numbers.
template <class S>
constexpr S kMinExponent = sizeof(S) == 4 ? S(-87) : S(-708);

// What all classes share. The sums run over the pivot too, so Z = Σ w, and the formulas for j ≠ k hold for
// the pivot as they stand. Not for t near −1, where Z + D has cancelled.
template <class M, class V>
VAAL_HD PivotRow<V> plain_row(V Z, V D, V T, V U) {
  PivotRow<V> row;
  row.scale = V{} + 1;
  row.inv_z = 1 / Z;
  row.inv_zq = 1 / (Z + D);
  row.t = D * row.inv_z;
  row.log_ratio = row.log_ratio_over = M::log1p(row.t);
  row.x_pivot = -row.t * row.inv_zq;
  row.mean_delta_q = row.mean_q_over = T * row.inv_zq;
  row.mean_delta_p = row.mean_p_over = U * row.inv_z;
  return row;
}

}  // namespace vaal
