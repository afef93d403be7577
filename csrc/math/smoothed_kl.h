// The same row with both posteriors mixed with the uniform distribution:
//   p̃ = (1 − s)p + s/C    q̃ = (1 − s)q + s/C    d̃ = q̃ − p̃ = (1 − s)(q − p)    y = d̃/p̃    ṽ = log q̃ − log p̃ = log1p(y)
// with p, q, x and the scale e^m of pivot_kl.h. With h = ∂value/∂q̃ (up to a constant of the row),
//   ∂value/∂b_j = (1 − s) q_j (h_j − Σ q_i h_i)
// and likewise for a with h = ∂value/∂p̃. Near r = 0, h is of order e^m and so is q_j for j ≠ k:
// h is carried over e^m, and the gradient over e^2m.
#pragma once

#include "pivot_kl.h"

namespace vaal {

template <class V>
struct Smoothed {
  V value;   // this class's term of the divergence (not scaled)
  V h_q, h_p;  // ∂value/∂q̃ and ∂value/∂p̃, over e^m, up to a constant of the row
};

// p and q are the class's posteriors, x its (q − p)/e^m; keep = 1 − s, floor = s/C.
template <class M, bool kSymmetric, class V>
VAAL_HD Smoothed<V> smoothed_term(V scale, V p, V q, V x, V keep, V floor) {
  using S = typename M::Scalar;
  const V p_mixed = keep * p + floor;
  const V q_mixed = keep * q + floor;
  const V y_over = keep * x / p_mixed;
  // ṽ through log1p of a number ≥ 0 (|d̃| over the smaller of p̃ and q̃): log1p(y) loses all digits
  // where q̃ ≪ p̃ and y rounds to −1.
  const V rise_over = x < 0 ? -(keep * x / q_mixed) : y_over;
  const V rise = scale * rise_over;
  const V size = M::log1p(rise);
  const V size_over = rise == 0 ? rise_over : rise_over * (size / rise);
  const V v = x < 0 ? -size : size, v_over = x < 0 ? -size_over : size_over;
  const V change = scale * keep * x;
  const V change_over_q = keep * x / q_mixed;
  if constexpr (kSymmetric) return {change * v, v_over + change_over_q, -v_over - y_over};
  const auto near = (v < S(0.5)) & (v > S(-0.5));
  const V value = near ? p_mixed * phi_series<M>(near ? v : v - v) : change - p_mixed * v;
  return {value, change_over_q, -v_over};
}

}  // namespace vaal
