// Exponentials and a quotient without a branch, for the range that the kernels need them in.
#pragma once

#include "cuda/device.cuh"

namespace vaal {

// e^x, x <= 0: 2^t·(1 + lost·ln 2), t being x·log2 e as it rounds and `lost` what that leaves out.
VAAL_DEVICE float plain_exp(float x) {
  using M = CudaMath<float>;
  constexpr float kHigh = 1.44269502f, kLow = 1.92596303e-8f;  // log2 e
  const float t = x * kHigh, lost = M::fma(x, kLow, M::fma(x, kHigh, -t));
  const float power = M::exp2_approx(t);
  return M::fma(power * lost, 0.693147182f, power);
}
VAAL_DEVICE double plain_exp(double x) { return CudaMath<double>::exp(x); }

// e^x − 1, |x| <= 87 (708): x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial in r (the CPU's,
// cpu/kernels/elementary.h). CUDA's expm1f has several branches.
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

// x / divisor, rounded once, for many x: a product and what it lacks. divisor / divisor is 1. 1 / divisor
// must be finite.
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
