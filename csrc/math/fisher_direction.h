// The top eigenvector of F = diag(p) − ppᵀ, p = softmax(a), and its eigenvalue λ, pivoted on
// k = argmax a.
//
// v_j ∝ p_j/(p_j − λ), and λ, between the two largest p, is where these add up to 0. With
//
//   a_r = max_{j≠k} a_j    e = e^(a_r − a_k)    h = 1 − e    w_j = e^(a_j − a_r)    D_j = (1 − w_j)/h
//   λ = p_r (1 + h σ)      p_r = e/(1 + e R)    R = Σ w_j (j ≠ k)
//
// that is   S(σ) = Σ w_j/(σ + D_j) = 1/(1 − e σ),   v_j = w_j/(σ + D_j)/S, j ≠ k,   v_k = −1.
//
// No difference of two posteriors is left: λ and v keep their digits where 1 − p_k is 1e-30 and where
// the two largest p are next to each other, and |v_k| = Σ v_j is the row's maximum. At a tie h is 0,
// which a smallest number stands for: then only the classes of the tie move, and λ = p_k.
//
// H(σ) = 1/S + e σ − 1 is concave and rises, so Newton's steps rise to its root from below and never
// pass it. Two bounds to begin at: w_r/σ <= S gives σ >= 1/(1 + e), and Jensen's inequality for the
// mean of D weighted by w, M/R with M = Σ w_j D_j, σ >= (R − M/R)/(1 + e R). From there two to five
// steps do, one with two classes.
#pragma once

#include "math/macros.h"

namespace vaal {

// 1/h, which stays finite at a tie.
template <class S, class V>
VAAL_HD V inverse_gap(V h) {
  constexpr S kTie = S(0x1p-120);
  return 1 / (h < kTie ? h - h + kTie : h);
}

// Where Newton's steps begin.
template <class V>
VAAL_HD V first_root(V e, V R, V M) {
  const V nearest = 1 / (1 + e), mean = (R - M / R) / (1 + e * R);
  return (mean > nearest ? mean : nearest) + (R - R);  // NaN where R is
}

// One step from σ: S = Σ w_j/(σ + D_j), T = Σ w_j/(σ + D_j)².
template <class V>
VAAL_HD V next_root(V e, V sigma, V S, V T) {
  return sigma + S * ((1 - e * sigma) * S - 1) / (T + e * S * S);
}

// A step shorter than this share of σ leaves an error of its square.
template <class S>
constexpr S kLastStep = sizeof(S) == 4 ? S(1e-4) : S(1e-8);

// More than any row takes; NaN ends here too.
constexpr int kMostSteps = 12;

}  // namespace vaal
