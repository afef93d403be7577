// The same row with both posteriors mixed with the uniform distribution:
//   p̃ = keep·p + floor    q̃ = keep·q + floor    keep = 1 − s    floor = s/C    v = log q̃ − log p̃
// with p, q and x of pivot_kl.h. With h = ∂value/∂q̃ (up to a constant of the row),
//   ∂value/∂b_j = keep·q_j (h_j − Σ q_i h_i)                     and likewise for a with ∂value/∂p̃.
//
// Where several classes share a posterior their h are large beside what they differ by. So h is never
// subtracted: H_j = h_j − h_r is formed as it stands, r being the largest class of the posterior that
// is differentiated by. Call that one `own` (p for ∂a, q for ∂b) and the other one `other`:
//
//   E_j = (other̃_j own̂_r − other̃_r own̂_j)/keep = own̂_r·moved_j + floor·(other_r − own_r)·g_j    (own̂ = own mixed)
//   moved_j = other_j − own_j·other_r/own_r         g_j = e^(own logit j − own logit r) − 1
//   L_j = log(other̃_j/own̂_j) − log(other̃_r/own̂_r) = log1p(keep·E_j/(own̂_j other̃_r))
//   F_j = other̃_j/own̂_j − other̃_r/own̂_r           = keep·E_j/(own̂_j own̂_r)
//   H_j = −L_j − F_j (symmetric)      −L_j (forward, own = p)      −F_j (forward, own = q)
//   ∂value/∂own logit j = keep·own_j (H_j − Σ own_i H_i)          H_r = 0
//
// moved_j and g_j come from differences of logits, so equal classes have H = 0 exactly. own_r ≥ 1/C.
// Where one class holds nearly all, every E, x and own_j (j ≠ r) is of the order σ = min(e^m, 1): they
// are carried over σ, and the gradient over σ².
#pragma once

#include "math/pivot_kl.h"

namespace vaal {

// A class on both sides.
template <class V>
struct Smoothed {
  V p, q;   // p̃ and q̃
  V v;      // log q̃ − log p̃
  V value;  // its term of the divergence
};

// log1p(σ·x) over σ, for x ≥ 0.
template <class M, class V>
VAAL_HD V log1p_over(V sigma, V x) {
  const V whole = sigma * x;
  return whole == 0 ? x : x * (M::log1p(whole) / whole);
}

// p and q are the class's posteriors, x its (q − p)/σ.
template <class M, bool kSymmetric, class V>
VAAL_HD Smoothed<V> smoothed_class(V sigma, V p, V q, V x, V keep, V floor) {
  using S = typename M::Scalar;
  const V p_mixed = keep * p + floor;
  const V q_mixed = keep * q + floor;
  const V change = sigma * keep * x;
  // v through log1p of a number ≥ 0 (|q̃ − p̃| over the smaller of them): log1p(q̃/p̃ − 1) loses all
  // digits where q̃ ≪ p̃.
  const V size = M::log1p(x < 0 ? -change / q_mixed : change / p_mixed);
  const V v = x < 0 ? -size : size;
  if constexpr (kSymmetric) return {p_mixed, q_mixed, v, change * v};
  const auto near = (v < S(0.5)) & (v > S(-0.5));
  const V value = near ? p_mixed * phi_series<M>(near ? v : v - v) : change - p_mixed * v;
  return {p_mixed, q_mixed, v, value};
}

// other_j − own_j·ratio, ratio = other_r/own_r; delta: by how much more the logit of j grows from
// `own` to `other` than that of r.
template <class M, class V>
VAAL_HD V moved_beside(V own, V other, V ratio, V delta) {
  using S = typename M::Scalar;
  const auto near = (delta <= 1) & (delta >= -1);
  const V share = ratio * own;
  return near ? share * M::expm1(near ? delta : V{} + S(0)) : other - share;
}

// The class r.
template <class V>
struct SmoothedPeak {
  V own, other;  // mixed
  V log_ratio;   // log(other̃_r/own̂_r)
  V lean;        // floor·(other_r − own_r)/σ
};

// E_j over σ; moved over σ.
template <class V>
VAAL_HD V mixed_beside(const SmoothedPeak<V>& peak, V moved, V g) {
  return peak.own * moved + peak.lean * g;
}

// H_j over σ. own, other, log_ratio: of class j, mixed; E over σ. kOwnIsP matters to `forward` alone.
template <class M, bool kSymmetric, bool kOwnIsP, class V>
VAAL_HD V smoothed_slope(const SmoothedPeak<V>& peak, V sigma, V own, V other, V log_ratio, V E,
                         V keep) {
  using S = typename M::Scalar;
  const V kept = keep * E;
  V slope{};
  if constexpr (kSymmetric || !kOwnIsP) slope = -(kept / own) / peak.own;
  if constexpr (kSymmetric || kOwnIsP) {
    // As v above. Where the ratio is far from 1 the two logarithms can be subtracted, and need not
    // fear a quotient beyond the range.
    const auto falls = E < 0;
    const V rise = falls ? -(kept / other) / peak.own : (kept / own) / peak.other;
    const auto far = !(sigma * rise < S(1024));
    const V size = log1p_over<M>(sigma, far ? V{} + S(0) : rise);
    slope = slope - (far ? (log_ratio - peak.log_ratio) / sigma : falls ? -size : size);
  }
  return slope;
}

}  // namespace vaal
