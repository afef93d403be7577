// exp, expm1, log, log1p and sin/cos on a register: the math policy M of csrc/math on the CPU.
//
// Errors against correctly rounded results are below 2 ulp over the ranges the formulas use
// (python_tests/ops/test_ops_accuracy.py measures what comes out of the ops). NaN passes through.
#pragma once

#include "cpu/kernels/simd.h"

namespace vaal::VAAL_ISA {

// From the highest coefficient down: Horner's rule in x², on pairs of coefficients. As many operations
// as Horner's rule in x, in a chain half as long.
template <class S, class V, int N>
VAAL_HD V polynomial(V x, const double (&coefficient)[N]) {
  constexpr int kOdd = N % 2;
  const V square = x * x;
  const auto at = [&](int i) { return constant<S>(S(coefficient[i])); };
  V sum = at(0);
  if constexpr (!kOdd) sum = x * sum + at(1);
  VAAL_UNROLL
  for (int i = 2 - kOdd; i < N; i += 2) sum = sum * square + (x * at(i) + at(i + 1));
  return sum;
}

template <class S>
struct SimdMath {
  using Scalar = S;
  using V = typename Register<S>::V;
  using I = typename Register<S>::I;
  using Lane = typename Register<S>::Lane;
  static constexpr bool kFloat = sizeof(S) == 4;
  static constexpr int kMantissa = kFloat ? 23 : 52;
  static constexpr int kBias = kFloat ? 127 : 1023;
  static constexpr S kMinExponent = kFloat ? S(-87) : S(-708);     // e^x is still a normal number
  static constexpr S kZeroExponent = kFloat ? S(-88) : S(-709);    // here n is the bias: 2^n = 0
  static constexpr S kRound = kFloat ? S(0x1.8p23) : S(0x1.8p52);  // x + kRound rounds x

  // x = n ln 2 + r, |r| <= ln 2 / 2: returns e^r − 1 and the bits of 2^n.
  static VAAL_HD V reduced_expm1(V x, V& power) {
    const V round = constant<S>(kRound);
    const V shifted = x * constant<S>(S(1.4426950408889634)) + round;
    const V n = shifted - round;
    const I exponent = bits_as<I>(shifted) << kMantissa;
    power = bits_as<V>(exponent + (Lane(kBias) << kMantissa));
    V r;
    if constexpr (kFloat) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
      // Fused, one constant does: n times its error changes x by 3e-9 of x, far below x's rounding.
      r = x - n * constant<S>(S(0.6931471805599453));
#else
      r = x - n * S(0.693359375);  // exact: so few bits
      r = r + n * S(2.12194440e-4);
#endif
      // The polynomial of least relative error (1.9e-9) of its degree, found by Remez's exchange.
      constexpr double c[] = {0.00021107399488353521, 0.0013959732872967753, 0.0083311753027826696,
                              0.041666037121056378,   0.16666675300678616,   0.50000001674936609};
      return polynomial<S>(r, c) * (r * r) + r;
    } else {
      r = x - n * constant<S>(S(6.93147180369123816490e-01));
      r = r - n * constant<S>(S(1.90821492927058770002e-10));
      constexpr double c[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                              1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                              1.0 / 120,        1.0 / 24,        1.0 / 6,        0.5};
      return polynomial<S>(r, c) * (r * r) + r;
    }
  }

  // e^x for x <= −kMinExponent; below kMinExponent 2^n has the bits of 0.
  static VAAL_HD V exp(V x) { return exp_of_normal(larger(broadcast<S>(kZeroExponent), x)); }

  // The same for |x| <= −kMinExponent, without a test.
  static VAAL_HD V exp_of_normal(V x) {
    V power;
    const V small = reduced_expm1(x, power);
    return power * small + power;
  }

  // e^x − 1 for x <= −kMinExponent.
  static VAAL_HD V expm1(V x) { return expm1_of_normal(larger(broadcast<S>(S(-50)), x)); }

  // The same for |x| <= −kMinExponent, without a test.
  static VAAL_HD V expm1_of_normal(V x) {
    V power;
    const V small = reduced_expm1(x, power);
    return power * small + (power - constant<S>(1));
  }

  // which ? e^x : e^y − 1, for y <= 1, in one evaluation.
  template <class Mask>
  static VAAL_HD V exp_or_expm1(Mask which, V x, V y) {
    const V chosen = which ? x : y;
    V power;
    const V small = reduced_expm1(larger(broadcast<S>(kZeroExponent), chosen), power);
    return power * small + (which ? power : power - 1);
  }

  // ln(mantissa · 2^exponent) for a positive normal x, the mantissa in [√½, √2).
  static VAAL_HD V log(V x) {
    const I bits = bits_as<I>(x);
    const Lane half_sqrt2 = kFloat ? Lane(0x3f3504f3) : Lane(0x3fe6a09e667f3bcdLL);
    const I exponent = (bits - half_sqrt2) >> kMantissa;
    const V mantissa = bits_as<V>(bits - (exponent << kMantissa));
    const V e = __builtin_convertvector(exponent, V);
    const V f = mantissa - 1;
    const V s = f / (f + 2);
    const V s2 = s * s;
    V tail;  // atanh(s)/s − 1, by its series
    if constexpr (kFloat) {
      constexpr double c[] = {1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3};
      tail = polynomial<S>(s2, c) * s2;
    } else {
      constexpr double c[] = {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                              1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3};
      tail = polynomial<S>(s2, c) * s2;
    }
    // 2s = f − s f exactly in f's precision, so the leading term is f itself.
    const V fraction = f - s * (f - 2 * tail);
    constexpr double ln2_hi = kFloat ? 0.693359375 : 6.93147180369123816490e-01;
    constexpr double ln2_lo = kFloat ? -2.12194440e-4 : 1.90821492927058770002e-10;
    return e * S(ln2_hi) + (fraction + e * S(ln2_lo));
  }

  // ln(1 + x) for x > −1; what 1 + x rounds away comes back as a first-order correction.
  static VAAL_HD V log1p(V x) {
    const V sum = x + 1;
    const V lost = x - (sum - 1);
    const V result = log(sum) + lost / sum;
    const V passed = x == S(__builtin_inf()) ? x : result;
    return x != x ? x : passed;
  }

  static VAAL_HD V sqrt(V x) {
#if defined(__AVX512F__)
    if constexpr (kFloat) return V(_mm512_sqrt_ps(__m512(x)));
    else return V(_mm512_sqrt_pd(__m512d(x)));
#elif defined(__AVX2__)
    if constexpr (kFloat) return V(_mm256_sqrt_ps(__m256(x)));
    else return V(_mm256_sqrt_pd(__m256d(x)));
#elif defined(__aarch64__)
    if constexpr (kFloat) return V(vsqrtq_f32(float32x4_t(x)));
    else return V(vsqrtq_f64(float64x2_t(x)));
#else
    for (int lane = 0; lane < Register<S>::kLanes; ++lane)
      x[lane] = kFloat ? S(__builtin_sqrtf(x[lane])) : S(__builtin_sqrt(x[lane]));
    return x;
#endif
  }

  // sin and cos of 2π·turn, 0 < turn < 1: the nearest quarter turn is taken off exactly.
  static VAAL_HD void sincos_turn(V turn, V& sine, V& cosine) {
    const V shifted = turn * 4 + kRound;
    const V angle = (turn * 4 - (shifted - kRound)) * S(1.5707963267948966);
    const I quarter = bits_as<I>(shifted) & 3;
    const V square = angle * angle;
    constexpr double s[] = {-1.0 / 1307674368000.0,
                            1.0 / 6227020800.0,
                            -1.0 / 39916800,
                            1.0 / 362880,
                            -1.0 / 5040,
                            1.0 / 120,
                            -1.0 / 6};
    constexpr double c[] = {1.0 / 20922789888000.0,
                            -1.0 / 87178291200.0,
                            1.0 / 479001600,
                            -1.0 / 3628800,
                            1.0 / 40320,
                            -1.0 / 720,
                            1.0 / 24,
                            -0.5};
    const V sin_part = polynomial<S>(square, s) * (square * angle) + angle;
    const V cos_part = polynomial<S>(square, c) * square + 1;
    const auto odd = (quarter & 1) != 0;
    const V first = odd ? cos_part : sin_part;
    const V second = odd ? sin_part : cos_part;
    sine = (quarter & 2) != 0 ? -first : first;
    cosine = ((quarter + 1) & 2) != 0 ? -second : second;
  }
};

}  // namespace vaal::VAAL_ISA
