// The divergence of two softmax rows and its gradients, pivoted on k = argmax a.
//
//   α_j = a_j − a_k    β_j = b_j − b_k    δ_j = (b_j − a_j) − (b_k − a_k)    m = max_{j≠k} max(α_j, β_j)
//
// Everything that belongs to a class j ≠ k is carried divided by e^m ("scaled"), so a row that is
// saturated to any degree neither underflows nor loses the direction of its gradient:
//
//   w_j = e^(α_j − m)    v_j = e^(β_j − m)    d_j = v_j − w_j = w_j·expm1(δ_j)
//   R = Σ w_j    V = Σ v_j    D = Σ d_j    T = Σ v_j δ_j    U = Σ w_j δ_j          (sums over j ≠ k)
//   Z = 1 + e^m R    Z_q = 1 + e^m V    t = e^m D / Z    Λ = log1p(t) = −log1p(−e^m D / Z_q)
//   x_j = (q_j − p_j)/e^m = (d_j − w_j t)/Z_q        x_k = −(D/Z)/Z_q        u_j = δ_j − Λ
//
// V is a scalar (CUDA, one lane) or a vector register (CPU); M supplies exp, expm1, log1p and
// exp_or_expm1(which, x, y) = which ? exp(x) : expm1(y) for it.
#pragma once

#include "math/macros.h"

namespace vaal {

// A class whose δ is ±∞ has probability zero on one side: 0·∞ counts as 0 there. kGuard = false
// leaves the test out, for callers that know every δ to be finite.
template <bool kGuard = true, class V>
VAAL_HD V weigh(V weight, V x) {
  if constexpr (!kGuard) return weight * x;
  return weight == 0 ? weight : weight * x;
}

// Whether v and w differ by more than a factor e.
template <class V>
VAAL_HD auto moved_far(V delta) {
  return (delta > 1) | (delta < -1);
}

// One class j ≠ k, with two exponentials: w and one `held` number, from which follow
//
//   |δ| ≤ 1   held = d = w·expm1(δ), accurate however small δ is        v = w + d
//   |δ| > 1   held = v                                                  d = v − w
//
// so a class that was far below the pivot and rose does not overflow, and neither it nor one that
// fell loses its smaller exponential.
template <class V>
struct PivotTerm {
  V w, held, delta;

  VAAL_HD V v() const { return moved_far(delta) ? held : w + held; }
  VAAL_HD V d() const { return moved_far(delta) ? held - w : held; }
};

template <class M, class V>
VAAL_HD PivotTerm<V> pivot_term(V alpha_m, V beta_m, V delta) {
  const auto far = moved_far(delta);
  const V w = M::exp(alpha_m);
  const V second = M::exp_or_expm1(far, beta_m, delta);
  return {w, far ? second : w * second, delta};
}

// What all classes of a row share once the five sums are known.
template <class V>
struct PivotRow {
  V scale;                     // e^m
  V inv_z, inv_zq;             // 1/Z, 1/Z_q: the posteriors of the pivot, p_k and q_k
  V t, log_ratio;              // t and Λ
  V x_pivot;                   // x_k
  V log_ratio_over;            // Λ / e^m, finite where e^m underflows
  V mean_delta_q;              // S_q = Σ q_j δ_j
  V mean_delta_p;              // S_p = Σ p_j δ_j
  V mean_q_over, mean_p_over;  // S_q / e^m, S_p / e^m
};

// Z + e^m D has no digits left where the pivot of many classes rose to take it all, and log1p(t) none
// where t ≈ −1: hence V, and Λ from the positive one of its two forms.
template <class M, class V>
VAAL_HD PivotRow<V> pivot_row(V m, V R, V sum_v, V D, V T, V U) {
  PivotRow<V> row;
  row.scale = M::exp(m);
  row.inv_z = 1 / (1 + row.scale * R);
  row.inv_zq = 1 / (1 + row.scale * sum_v);
  const V t_over = D * row.inv_z;
  row.t = row.scale * t_over;
  const auto falls = D < 0;
  const V over = falls ? D * row.inv_zq : t_over;  // Λ ≈ e^m·over
  const V change = row.scale * (falls ? -over : over);
  const V size = M::log1p(change);
  row.log_ratio = falls ? -size : size;
  row.log_ratio_over = change == 0 ? over : over * (size / change);
  row.x_pivot = -t_over * row.inv_zq;
  row.mean_q_over = T * row.inv_zq;
  row.mean_p_over = U * row.inv_z;
  row.mean_delta_q = row.scale * row.mean_q_over;
  row.mean_delta_p = row.scale * row.mean_p_over;
  return row;
}

// x_j = (q_j − p_j) / e^m, for t not near −1.
template <class V>
VAAL_HD V posterior_change(const PivotRow<V>& row, V w, V d) {
  return (d - w * row.t) * row.inv_zq;
}

// The same for every t: where the pivot rose, q_j and p_j are far apart and can be subtracted.
template <class V>
VAAL_HD V posterior_change(const PivotRow<V>& row, V w, V v, V d) {
  const V direct = v * row.inv_zq - w * row.inv_z;
  return 2 * row.t < -1 ? direct : posterior_change(row, w, d);
}

// φ(u) = expm1(u) − u by its Taylor series, for |u| < 1/2 (relative error below 2^-53).
template <class M, class V>
VAAL_HD V phi_series(V u) {
  using S = typename M::Scalar;
  V s = S(1.0 / 20922789888000.0) * u + S(1.0 / 1307674368000.0);
  s = s * u + S(1.0 / 87178291200.0);
  s = s * u + S(1.0 / 6227020800.0);
  s = s * u + S(1.0 / 479001600.0);
  s = s * u + S(1.0 / 39916800.0);
  s = s * u + S(1.0 / 3628800.0);
  s = s * u + S(1.0 / 362880.0);
  s = s * u + S(1.0 / 40320.0);
  s = s * u + S(1.0 / 5040.0);
  s = s * u + S(1.0 / 720.0);
  s = s * u + S(1.0 / 120.0);
  s = s * u + S(1.0 / 24.0);
  s = s * u + S(1.0 / 6.0);
  s = s * u + S(0.5);
  return s * u * u;
}

// The term of class j ≠ k of the divergence, over e^m. Never negative.
//   symmetric: x_j u_j         forward: p_j φ(u_j) / e^m  with  p_j/e^m = w_j/Z
template <class M, bool kSymmetric, bool kGuard = true, class V>
VAAL_HD V value_term(const PivotRow<V>& row, V w, V x, V u) {
  if constexpr (kSymmetric) return weigh<kGuard>(x, u);
  using S = typename M::Scalar;
  const V p = w * row.inv_z;
  const auto near = (u < S(0.5)) & (u > S(-0.5));
  return near ? p * phi_series<M>(near ? u : u - u) : x - weigh<kGuard>(p, u);
}

// The pivot's term over e^m; u_k = −Λ.
//   symmetric: x_k·(−Λ)        forward: p_k φ(−Λ) / e^m
template <class M, bool kSymmetric, class V>
VAAL_HD V value_pivot(const PivotRow<V>& row) {
  if constexpr (kSymmetric) return -row.x_pivot * row.log_ratio;
  using S = typename M::Scalar;
  const auto near = (row.log_ratio < S(0.5)) & (row.log_ratio > S(-0.5));
  const V u = near ? -row.log_ratio : row.log_ratio - row.log_ratio;
  // φ(u)/e^m = (φ(u)/u)·(u/e^m), which stays right where e^m underflows (then φ is 0).
  const V series = u == 0 ? u : phi_series<M>(u) / u * -row.log_ratio_over;
  return near ? row.inv_z * series : row.x_pivot + row.inv_z * row.log_ratio_over;
}

// ∂/∂b_j over e^m, j ≠ k.   symmetric: q_j(δ_j − S_q) + (q_j − p_j)      forward: q_j − p_j
template <bool kSymmetric, bool kGuard = true, class V>
VAAL_HD V grad_q_term(const PivotRow<V>& row, V v, V x, V delta) {
  if constexpr (!kSymmetric) return x;
  return weigh<kGuard>(v * row.inv_zq, delta - row.mean_delta_q) + x;
}

template <bool kSymmetric, class V>
VAAL_HD V grad_q_pivot(const PivotRow<V>& row) {
  if constexpr (!kSymmetric) return row.x_pivot;
  return row.x_pivot - row.inv_zq * row.mean_q_over;
}

// ∂/∂a_j over e^m, j ≠ k.   symmetric: −p_j(δ_j − S_p) − (q_j − p_j)     forward: −p_j(δ_j − S_p)
// (the forward one is −p_j(u_j + KL), and KL = −Σ p_i u_i = Λ − S_p: taken from S_p it never cancels)
template <bool kSymmetric, bool kGuard = true, class V>
VAAL_HD V grad_p_term(const PivotRow<V>& row, V w, V x, V delta) {
  const V spread = -weigh<kGuard>(w * row.inv_z, delta - row.mean_delta_p);
  return kSymmetric ? spread - x : spread;
}

template <bool kSymmetric, class V>
VAAL_HD V grad_p_pivot(const PivotRow<V>& row) {
  return kSymmetric ? row.inv_z * row.mean_p_over - row.x_pivot : row.inv_z * row.mean_p_over;
}

}  // namespace vaal
