// Sums of squares that neither overflow nor underflow, of a part of a row at a time.
//
//   2^e ≤ max|d| < 2^(e+1)    s = Σ (d·2^−e)²    ‖d‖ = √s·2^e
//
// Scaling by a power of two is exact and keeps gradients of 1e-30, of 1e30 and subnormal ones in
// range; partial sums (e, s) are merged by shifting the smaller e. An infinity or a NaN among d
// makes s infinite or NaN.
#pragma once

#include "cuda/storage.cuh"

namespace vaal {

template <class S>
constexpr int kMaxExponent = sizeof(S) == 8 ? 1022 : 126;

// 2^e, |e| <= kMaxExponent: a normal number.
VAAL_DEVICE float power_of_two(int e, float) {
  return bits_to_float(static_cast<uint32_t>(e + 127) << 23);
}
VAAL_DEVICE double power_of_two(int e, double) {
  return bits_to_double(0, static_cast<uint32_t>(e + 1023) << 20);
}

// The binary exponent of |x|, cut to ±kMaxExponent (0 and subnormal numbers from below, infinity
// from above).
VAAL_DEVICE int exponent_of(float x) {
  const int e = static_cast<int>(float_to_bits(x) >> 23 & 0xFF) - 127;
  return e < -126 ? -126 : e > 126 ? 126 : e;
}
VAAL_DEVICE int exponent_of(double x) {
  const int e = static_cast<int>(high_bits(x) >> 20 & 0x7FF) - 1023;
  return e < -1022 ? -1022 : e > 1022 ? 1022 : e;
}

// s·2^(2e) = Σ d².
template <class S>
struct ScaledSquares {
  S s = 0;
  int e = -kMaxExponent<S>;
  int padding = 0;  // whole words in both types
};

template <class S>
VAAL_DEVICE ScaledSquares<S> merge(const ScaledSquares<S>& x, const ScaledSquares<S>& y) {
  const int e = x.e > y.e ? x.e : y.e;
  const int least = -kMaxExponent<S>;
  const S fx = power_of_two(x.e - e > least ? x.e - e : least, S());
  const S fy = power_of_two(y.e - e > least ? y.e - e : least, S());
  return {x.s * fx * fx + y.s * fy * fy, e, 0};
}

// Σ d² over the items of a thread's packs.
template <class T, int kPacks>
VAAL_DEVICE ScaledSquares<Scalar<T>> scaled_squares(const Pack (&d)[kPacks]) {
  using S = Scalar<T>;
  S peak = 0;
#pragma unroll
  for (int c = 0; c < kPacks; ++c)
#pragma unroll
    for (int i = 0; i < kPackItems<T>; ++i)
      peak = CudaMath<S>::max(peak, CudaMath<S>::abs(to_scalar(unpack<T>(d[c], i))));
  ScaledSquares<S> sum;
  sum.e = exponent_of(peak);
  const S down = power_of_two(-sum.e, S());
#pragma unroll
  for (int c = 0; c < kPacks; ++c)
#pragma unroll
    for (int i = 0; i < kPackItems<T>; ++i) {
      const S scaled = to_scalar(unpack<T>(d[c], i)) * down;
      sum.s += scaled * scaled;
    }
  return sum;
}

}  // namespace vaal
