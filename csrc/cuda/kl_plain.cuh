// One row of the divergence by the formulas of csrc/math/plain_kl.h, cut into the pieces that are reduced.
//
//   a = p_logits[row, :]    b = q_logits[row, :]                                        [C] each
//
// 1. PlainTop: a and b at the pivot k = argmax a.
// 2. PlainSums: R, D, T, and how far a logit moved; PlainMoment: U, for ∂a alone. With them the PivotRow.
// 3. PlainTotals: the value and the largest entry of the gradient. plain_enough() then tells whether the
//    row was one for these formulas.
#pragma once

#include <cmath>

#include "cuda/arguments.h"
#include "cuda/elementary.cuh"
#include "cuda/group.cuh"
#include "cuda/storage.cuh"
#include "math/plain_kl.h"

namespace vaal {

// What fills up a row, in both tensors: finite, so that its δ is, and so low that its weight is 0.
template <class T>
constexpr Scalar<T> kPlainBlank = sizeof(T) == 8 ? Scalar<T>(-1e300) : Scalar<T>(-1e38);
template <>
constexpr float kPlainBlank<Half> = -60000.0f;

template <class S>
struct PlainTop {
  S a = S(-INFINITY), b = 0;

  // NaN is passed over here; the sums meet it.
  VAAL_DEVICE void absorb(S next_a, S next_b) {
    const bool wins = next_a > a;
    a = wins ? next_a : a;
    b = wins ? next_b : b;
  }
};

template <class S>
VAAL_DEVICE PlainTop<S> merge(const PlainTop<S>& x, const PlainTop<S>& y) {
  const bool x_wins = (x.a > y.a) | ((x.a == y.a) & (x.b > y.b));
  return {x_wins ? x.a : y.a, x_wins ? x.b : y.b};
}

template <class S>
struct PlainClass {
  S w, d, delta;
};

template <class S>
VAAL_DEVICE PlainClass<S> plain_class(const PlainTop<S>& top, S a, S b) {
  const S delta = (b - a) - (top.b - top.a);
  const S w = plain_exp(a - top.a);
  return {w, w * plain_expm1(delta), delta};
}

template <class S>
struct PlainSums {
  S R = 0, D = 0, T = 0;
  S reach = 0;  // max|δ|

  VAAL_DEVICE void absorb(const PlainClass<S>& c) {
    R += c.w;
    D += c.d;
    T += (c.w + c.d) * c.delta;
    reach = CudaMath<S>::max(reach, CudaMath<S>::abs(c.delta));
  }
};

template <class S>
VAAL_DEVICE PlainSums<S> merge(const PlainSums<S>& x, const PlainSums<S>& y) {
  return {x.R + y.R, x.D + y.D, x.T + y.T, CudaMath<S>::max(x.reach, y.reach)};
}

// What ∂a needs besides.
template <class S>
struct PlainMoment {
  S U = 0;

  VAAL_DEVICE void absorb(const PlainClass<S>& c) { U += c.w * c.delta; }
};

template <class S>
VAAL_DEVICE PlainMoment<S> merge(const PlainMoment<S>& x, const PlainMoment<S>& y) {
  return {x.U + y.U};
}

template <class S>
VAAL_DEVICE PivotRow<S> row_of(const PlainSums<S>& sums, const PlainMoment<S>& moment) {
  return plain_row<CudaMath<S>>(sums.R, sums.D, sums.T, moment.U);
}

template <class S>
struct PlainTotals {
  S value = 0;
  S peak = 0;  // the largest magnitude of a gradient entry

  VAAL_DEVICE void absorb_entry(S entry) { peak = CudaMath<S>::max(peak, CudaMath<S>::abs(entry)); }
};

template <class S>
VAAL_DEVICE PlainTotals<S> merge(const PlainTotals<S>& x, const PlainTotals<S>& y) {
  return {x.value + y.value, CudaMath<S>::max(x.peak, y.peak)};
}

// Whether the row was one for these formulas: its results, those of them that are asked for, are far from
// where they fail.
template <class T, class S = Scalar<T>>
VAAL_DEVICE bool plain_enough(const KlArguments<T>& args, const PlainTop<S>& top, S reach,
                              const PivotRow<S>& row, const PlainTotals<S>& totals) {
  // By at most this, over ulp, are the sums wrong for weights below the range: every class with
  // δ = reach and the weight e^(kMinExponent + reach).
  const S exponent = CudaMath<S>::max(reach + (kMinExponent<S> + kDigits<S>), kMinExponent<S>);
  const S unsure = kTiny<S> + CudaMath<S>::exp(exponent) * reach * static_cast<S>(args.cols);
  const bool sure_value = args.value == nullptr || totals.value > unsure;
  const bool no_gradient = args.grad_q == nullptr && args.grad_p == nullptr;
  return sure_value & (no_gradient || totals.peak > unsure) & (row.t < S(kFar)) &
         (row.t > S(kFallen)) & (reach < kReach<S>)&(top.a > kPlainBlank<T> / 2);
}

}  // namespace vaal
