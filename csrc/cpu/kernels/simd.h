// One register of floats or doubles, and the functions the kernels need on it.
//
// The kernels are written once on GCC/Clang vector types and compiled three times, each time with
// another -m flag and another VAAL_ISA namespace: avx512 (64-byte registers), avx2 (32), portable
// (16: SSE2 or NEON). cpu/choose.cpp chooses at run time. Nothing here may include a header with
// inline functions that other files share: the linker could keep the copy with the wider
// instructions. What g++ and clang++ spell differently stands here and in lanes.h alone.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "math/macros.h"

#if defined(__AVX512F__)
#define VAAL_REGISTER_BYTES 64
#elif defined(__AVX2__)
#define VAAL_REGISTER_BYTES 32
#else
#define VAAL_REGISTER_BYTES 16
#endif

// Before a loop over lanes or over coefficients, at most 16 of them.
#if defined(__clang__)
#define VAAL_UNROLL _Pragma("unroll")
#else
#define VAAL_UNROLL _Pragma("GCC unroll 16")
#endif

namespace vaal::VAAL_ISA {

template <class S>
struct Register;  // S -> its register V, the integers I of the same width, and their lane count

template <>
struct Register<float> {
  using Lane = int32_t;
  static constexpr int kLanes = VAAL_REGISTER_BYTES / 4;
  typedef float V __attribute__((vector_size(VAAL_REGISTER_BYTES)));
  typedef int32_t I __attribute__((vector_size(VAAL_REGISTER_BYTES)));
  typedef uint16_t Half __attribute__((vector_size(VAAL_REGISTER_BYTES / 2)));
};

template <>
struct Register<double> {
  using Lane = int64_t;
  static constexpr int kLanes = VAAL_REGISTER_BYTES / 8;
  typedef double V __attribute__((vector_size(VAAL_REGISTER_BYTES)));
  typedef int64_t I __attribute__((vector_size(VAAL_REGISTER_BYTES)));
};

// Storage types of half precision: bit patterns, so that no library type is needed.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class To, class From>
VAAL_HD To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

template <class S>
VAAL_HD typename Register<S>::V broadcast(S x) {
  return typename Register<S>::V{} + x;
}

// The same for a constant in a loop that has more of them than there are registers. AVX2 has no
// operand of one lane: clang would fill a register anew for every use, unless it cannot see that
// what it keeps on the stack is a constant.
template <class S>
VAAL_HD typename Register<S>::V constant(S x) {
  auto v = broadcast(x);
#if defined(__clang__) && defined(__AVX2__) && !defined(__AVX512F__)
  __asm__("" : "+x"(v));
#endif
  return v;
}

template <class S>
VAAL_HD typename Register<S>::I lane_numbers() {
  typename Register<S>::I index{};
  for (int lane = 0; lane < Register<S>::kLanes; ++lane) index[lane] = lane;
  return index;
}

// a > b ? a : b and a < b ? a : b, so b where either is NaN: exactly what max and min instructions
// do, which the compiler does not see.
template <class V>
VAAL_HD V larger(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (__is_same(V, Register<float>::V)) return V(_mm512_max_ps(__m512(a), __m512(b)));
  if constexpr (__is_same(V, Register<double>::V)) return V(_mm512_max_pd(__m512d(a), __m512d(b)));
#elif defined(__AVX2__)
  if constexpr (__is_same(V, Register<float>::V)) return V(_mm256_max_ps(__m256(a), __m256(b)));
  if constexpr (__is_same(V, Register<double>::V)) return V(_mm256_max_pd(__m256d(a), __m256d(b)));
#endif
  return a > b ? a : b;
}
template <class V>
VAAL_HD V smaller(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (__is_same(V, Register<float>::V)) return V(_mm512_min_ps(__m512(a), __m512(b)));
  if constexpr (__is_same(V, Register<double>::V)) return V(_mm512_min_pd(__m512d(a), __m512d(b)));
#elif defined(__AVX2__)
  if constexpr (__is_same(V, Register<float>::V)) return V(_mm256_min_ps(__m256(a), __m256(b)));
  if constexpr (__is_same(V, Register<double>::V)) return V(_mm256_min_pd(__m256d(a), __m256d(b)));
#endif
  return a < b ? a : b;
}
template <class S, class V>
VAAL_HD V magnitude(V x) {
  using I = typename Register<S>::I;
  constexpr auto kNotSign = typename Register<S>::Lane(~(uint64_t(1) << (8 * sizeof(S) - 1)));
  return bits_as<V>(bits_as<I>(x) & kNotSign);
}

// ---- loads and stores, n lanes; the lanes beyond n are filled -----------------------------------

template <class S>
VAAL_HD typename Register<S>::V load(const S* from) {
  typename Register<S>::V v;
  memcpy(&v, from, sizeof(v));
  return v;
}

VAAL_HD Register<float>::I widen(const uint16_t* from) {
#if defined(__aarch64__)
  return Register<float>::I(vmovl_u16(vld1_u16(from)));
#endif
  Register<float>::Half half;
  memcpy(&half, from, sizeof(half));
  return __builtin_convertvector(half, Register<float>::I);
}

VAAL_HD Register<float>::V load(const BFloat16* from) {
  return bits_as<Register<float>::V>(widen(&from->bits) << 16);
}

// The exponent is re-biased by a multiplication with 2^112, which also normalises subnormals.
VAAL_HD Register<float>::V load(const Float16* from) {
  using I = Register<float>::I;
  using V = Register<float>::V;
  const I half = widen(&from->bits);
  const I shifted = (half & 0x7fff) << 13;
  const I finite = bits_as<I>(bits_as<V>(shifted) * 0x1p112f);
  const I bits = shifted >= (0x7c00 << 13) ? (shifted | 0x7f800000) : finite;
  return bits_as<V>(bits | ((half & 0x8000) << 16));
}

template <class S>
VAAL_HD void store(S* to, typename Register<S>::V v) {
  memcpy(to, &v, sizeof(v));
}

VAAL_HD void narrow(uint16_t* to, Register<float>::I bits) {
#if defined(__aarch64__)
  return vst1_u16(to, vmovn_u32(uint32x4_t(bits)));
#endif
  const auto half = __builtin_convertvector(bits, Register<float>::Half);
  memcpy(to, &half, sizeof(half));
}

// Round to nearest, ties to even; NaN stays NaN.
VAAL_HD void store(BFloat16* to, Register<float>::V v) {
  using I = Register<float>::I;
  const I bits = bits_as<I>(v);
  const I rounded = ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) & 0xffff;
  narrow(&to->bits, v != v ? (I{} + 0x7fc0) : rounded);
}

VAAL_HD void store(Float16* to, Register<float>::V v) {
  using I = Register<float>::I;
  using V = Register<float>::V;
  const I bits = bits_as<I>(v);
  const I sign = (bits >> 16) & 0x8000;
  const I size = bits & 0x7fffffff;
  const I normal = (size - (112 << 23) + 0xfff + ((size >> 13) & 1)) >> 13;
  // Adding 1/2 lines a number below 2^-14 up with the subnormal grid; the sum's low bits are it.
  const I subnormal = bits_as<I>(bits_as<V>(size) + 0.5f) - bits_as<int32_t>(0.5f);
  I half = size < (113 << 23) ? subnormal : normal;
  half = size >= bits_as<int32_t>(65520.0f) ? (I{} + 0x7c00) : half;
  half = size > 0x7f800000 ? (I{} + 0x7e00) : half;
  narrow(&to->bits, half | sign);
}

// Hardware prefetchers stop at the end of a page of 4 KiB, which is where a row of a thousand floats
// ends too: the page after is asked for here, one register's worth at a time. Never faults.
template <class T>
VAAL_HD void prefetch_page_after(const T* at) {
  __builtin_prefetch(reinterpret_cast<const char*>(at) + 4096);
}

// load/store of the last n < kLanes elements of a row. Masked where there is an instruction for it:
// bytes that were stored one by one must reach memory before a whole register can be loaded.
template <class S, class T>
VAAL_HD typename Register<S>::V load_some(const T* from, int64_t n, S fill) {
  [[maybe_unused]] typedef typename Register<S>::V V;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return V(_mm512_mask_loadu_ps(__m512(broadcast<S>(fill)), __mmask16((1u << n) - 1), from));
  if constexpr (sizeof(T) == 8)
    return V(_mm512_mask_loadu_pd(__m512d(broadcast<S>(fill)), __mmask8((1u << n) - 1), from));
#elif defined(__AVX2__)
  const auto inside = lane_numbers<S>() < typename Register<S>::Lane(n);
  if constexpr (sizeof(T) == 4) {
    const V loaded = V(_mm256_maskload_ps(reinterpret_cast<const float*>(from), __m256i(inside)));
    return inside ? loaded : broadcast<S>(fill);
  }
  if constexpr (sizeof(T) == 8) {
    const V loaded = V(_mm256_maskload_pd(reinterpret_cast<const double*>(from), __m256i(inside)));
    return inside ? loaded : broadcast<S>(fill);
  }
#endif
  T buffer[Register<S>::kLanes] = {};
  memcpy(buffer, from, n * sizeof(T));
  return lane_numbers<S>() < typename Register<S>::Lane(n) ? load(buffer) : broadcast<S>(fill);
}
template <class S, class T>
VAAL_HD void store_some(T* to, typename Register<S>::V v, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_mask_storeu_ps(to, __mmask16((1u << n) - 1), __m512(v));
  if constexpr (sizeof(T) == 8)
    return _mm512_mask_storeu_pd(to, __mmask8((1u << n) - 1), __m512d(v));
#endif
  T buffer[Register<S>::kLanes];
  store(buffer, v);
  memcpy(to, buffer, n * sizeof(T));
}

// One element, in the type of the arithmetic.
template <class S, class T>
VAAL_HD S load_one(const T* from) {
  return load_some<S>(from, 1, S(0))[0];
}

}  // namespace vaal::VAAL_ISA
