// One row of the divergence by the formulas of csrc/math/plain_kl.h, cut into the pieces that are reduced.
//
//   a = p_logits[row, :]    b = q_logits[row, :]                                        [C] each
//
// 1. PlainTop: a and b at the pivot k = argmax a.
// 2. PlainSums: R, D and, for gradients, T and U; how far a logit moved. With them the PivotRow.
// 3. PlainTotals: the value and the largest entry of the gradient. plain_enough() then tells whether the
//    row was one for these formulas.
#pragma once

#include <cmath>

#include "cuda/arguments.h"
#include "cuda/group.cuh"
#include "cuda/storage.cuh"
#include "math/plain_kl.h"

namespace vaal {

// What fills up a row, in both tensors: finite, so that its δ is, and so low that its weight is 0.
template <class T>
constexpr Scalar<T> kPlainBlank = sizeof(T) == 8 ? Scalar<T>(-1e300) : Scalar<T>(-1e38);
template <>
constexpr float kPlainBlank<Half> = -60000.0f;

// e^x, x <= 0: 2^t·(1 + lost·ln 2), t being x·log2 e as it rounds and `lost` what that leaves out.
VAAL_DEVICE float plain_exp(float x) {
  using M = CudaMath<float>;
  constexpr float kHigh = 1.44269502f, kLow = 1.92596303e-8f;  // log2 e
  const float t = x * kHigh, lost = M::fma(x, kLow, M::fma(x, kHigh, -t));
  const float power = M::exp2_approx(t);
  return M::fma(power * lost, 0.693147182f, power);
}
VAAL_DEVICE double plain_exp(double x) { return CudaMath<double>::exp(x); }

// e^x − 1, |x| <= kReach: x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial in r (the CPU's,
// cpu/kernels/elementary.h). No branch, where CUDA's expm1f has several.
VAAL_DEVICE float plain_expm1(float x) {
  using M = CudaMath<float>;
  const float shifted = M::fma(x, 1.4426950408889634f, 0x1.8p23f), n = shifted - 0x1.8p23f;
  const float power = bits_to_float((float_to_bits(shifted) << 23) + 0x3F800000u);
  const float r = M::fma(n, -0.6931471805599453f, x);
  float sum = 0.00021107399488353521f;
  sum = M::fma(sum, r, 0.0013959732872967753f);
  sum = M::fma(sum, r, 0.0083311753027826696f);
  sum = M::fma(sum, r, 0.041666037121056378f);
  sum = M::fma(sum, r, 0.16666675300678616f);
  sum = M::fma(sum, r, 0.50000001674936609f);
  const float small = M::fma(sum * r, r, r);
  return M::fma(power, small, power - 1);
}
VAAL_DEVICE double plain_expm1(double x) { return CudaMath<double>::expm1(x); }

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

// kT, kU: whether T (for ∂b) and U (for ∂a) are needed.
template <class S, bool kT, bool kU>
struct PlainSums {
  static constexpr int kSums = 2 + kT + kU;
  S sum[kSums] = {};  // R, D, then T, then U
  S reach = 0;        // max|δ|

  VAAL_DEVICE void absorb(const PlainClass<S>& c) {
    sum[0] += c.w;
    sum[1] += c.d;
    if constexpr (kT) sum[2] += (c.w + c.d) * c.delta;
    if constexpr (kU) sum[kSums - 1] += c.w * c.delta;
    reach = CudaMath<S>::max(reach, CudaMath<S>::abs(c.delta));
  }

  VAAL_DEVICE PivotRow<S> row() const {
    return plain_row<CudaMath<S>>(sum[0], sum[1], kT ? sum[2] : S(0), kU ? sum[kSums - 1] : S(0));
  }
};

template <class S, bool kT, bool kU>
VAAL_DEVICE PlainSums<S, kT, kU> merge(const PlainSums<S, kT, kU>& x,
                                       const PlainSums<S, kT, kU>& y) {
  PlainSums<S, kT, kU> both;
#pragma unroll
  for (int i = 0; i < both.kSums; ++i) both.sum[i] = x.sum[i] + y.sum[i];
  both.reach = CudaMath<S>::max(x.reach, y.reach);
  return both;
}

template <class S>
struct PlainTotals {
  S value = 0;
  S peak = 0;  // the largest magnitude of a gradient entry

  VAAL_DEVICE void absorb_entry(S entry) {
    peak = CudaMath<S>::max(peak, CudaMath<S>::abs(entry));
  }
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
         (row.t > S(kFallen)) & (reach < kReach<S>) & (top.a > kPlainBlank<T> / 2);
}

// x / divisor, rounded once, for many x: a product and what it lacks. divisor / divisor is 1.
template <class S>
struct Quotient {
  S divisor, inverse;

  VAAL_DEVICE explicit Quotient(S by) : divisor(by), inverse(1 / by) {}
  VAAL_DEVICE S of(S x) const {
    const S near = x * inverse;
    return CudaMath<S>::fma(CudaMath<S>::fma(-near, divisor, x), inverse, near);
  }
};

}  // namespace vaal
