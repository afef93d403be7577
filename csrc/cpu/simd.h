// One register of floats or doubles, and the functions the kernels need on it.
//
// The kernels are written once on GCC/Clang vector types and compiled three times, each time with
// another -m flag and another VAAL_ISA namespace: avx512 (64-byte registers), avx2 (32), portable
// (16). library.cpp chooses at run time. Nothing here may include a header with inline functions
// that other files share: the linker could keep the copy with the wider instructions.
#pragma once

#include <stdint.h>
#include <string.h>

#include "../math/macros.h"

#if defined(__AVX512F__)
#define VAAL_REGISTER_BYTES 64
#elif defined(__AVX2__)
#define VAAL_REGISTER_BYTES 32
#else
#define VAAL_REGISTER_BYTES 16
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

template <class S>
VAAL_HD typename Register<S>::I lane_numbers() {
  typename Register<S>::I index{};
  for (int lane = 0; lane < Register<S>::kLanes; ++lane) index[lane] = lane;
  return index;
}

template <class V>
VAAL_HD V larger(V a, V b) {
  return a > b ? a : b;
}
template <class V>
VAAL_HD V smaller(V a, V b) {
  return a < b ? a : b;
}
template <class V>
VAAL_HD V magnitude(V x) {
  return x < 0 ? -x : x;
}

// Folds the upper half of the lanes onto the lower until one is left.
template <class S, int N, class Fold>
VAAL_HD S fold_lanes(const S (&lanes)[N], Fold fold) {
  if constexpr (N == 2) {
    return fold(lanes[0], lanes[1]);
  } else {
    typedef S Half __attribute__((vector_size(sizeof(S) * N / 2)));
    Half low, high;
    memcpy(&low, lanes, sizeof(Half));
    memcpy(&high, lanes + N / 2, sizeof(Half));
    const Half folded = fold(low, high);
    S next[N / 2];
    memcpy(next, &folded, sizeof(Half));
    return fold_lanes(next, fold);
  }
}

template <class S, class V, class Fold>
VAAL_HD S fold_register(V x, Fold fold) {
  S lanes[sizeof(V) / sizeof(S)];
  memcpy(lanes, &x, sizeof(V));
  return fold_lanes(lanes, fold);
}

template <class S>
VAAL_HD S lane_sum(typename Register<S>::V x) {
  return fold_register<S>(x, [](auto a, auto b) { return a + b; });
}
template <class S>
VAAL_HD S lane_max(typename Register<S>::V x) {
  return fold_register<S>(x, [](auto a, auto b) { return a > b ? a : b; });
}
template <class S>
VAAL_HD typename Register<S>::Lane lane_min(typename Register<S>::I x) {
  return fold_register<typename Register<S>::Lane>(x, [](auto a, auto b) { return a < b ? a : b; });
}

// ---- loads and stores, n lanes; the lanes beyond n are filled -----------------------------------

template <class S>
VAAL_HD typename Register<S>::V load(const S* from) {
  typename Register<S>::V v;
  memcpy(&v, from, sizeof(v));
  return v;
}

VAAL_HD Register<float>::I widen(const uint16_t* from) {
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

// load/store of the last n < kLanes elements of a row.
template <class S, class T>
VAAL_HD typename Register<S>::V load_some(const T* from, int64_t n, S fill) {
  T buffer[Register<S>::kLanes] = {};
  memcpy(buffer, from, n * sizeof(T));
  auto v = load(buffer);
  for (int lane = n; lane < Register<S>::kLanes; ++lane) v[lane] = fill;
  return v;
}
template <class S, class T>
VAAL_HD void store_some(T* to, typename Register<S>::V v, int64_t n) {
  T buffer[Register<S>::kLanes];
  store(buffer, v);
  memcpy(to, buffer, n * sizeof(T));
}

// One element, to and from the type of the arithmetic.
template <class S, class T>
VAAL_HD S load_one(const T* from) {
  return load_some<S>(from, 1, S(0))[0];
}
template <class S, class T>
VAAL_HD void store_one(T* to, S value) {
  store_some<S>(to, broadcast<S>(value), 1);
}

}  // namespace vaal::VAAL_ISA
