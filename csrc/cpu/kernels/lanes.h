// What moves values between the lanes of registers: shuffles, folds over all lanes, a transposition.
#pragma once

#include "cpu/kernels/simd.h"

namespace vaal::VAAL_ISA {

// The numbers 0, 1, … of the lanes of V, for a pack expansion.
template <int... lane>
struct LaneList {};
#if defined(__clang__)
template <class, int... lane>
using LaneListOf = LaneList<lane...>;
template <class V>
using LanesOf = __make_integer_seq<LaneListOf, int, sizeof(V) / sizeof(V{}[0])>;
#else
template <class V>
using LanesOf = LaneList<__integer_pack(sizeof(V) / sizeof(V{}[0]))...>;
#endif

// Lane l of the result is lane from(l) of a and b, one behind the other. The compilers name this
// differently: clang takes constants, GCC 11 a register of numbers.
template <class V, class From, int... lane>
VAAL_HD V shuffle(V a, V b, From, LaneList<lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, From{}(lane)...);
#else
  return __builtin_shuffle(a, b, decltype(a < b){From{}(lane)...});
#endif
}
template <class V, class From>
VAAL_HD V shuffle(V a, V b, From from) {
  return shuffle(a, b, from, LanesOf<V>{});
}

// Folds all lanes into one value, which every lane of the result holds. Exchanging halves, then
// quarters and so on keeps the order of the additions fixed.
template <class S, int kWidth = Register<S>::kLanes / 2, class V, class Fold>
VAAL_HD V fold_lanes(V x, const Fold& fold) {
  if constexpr (kWidth > 0) {
    x = fold(x, shuffle(x, x, [](int lane) { return lane ^ kWidth; }));
    return fold_lanes<S, kWidth / 2>(x, fold);
  }
  return x;
}

template <class S, class V>
VAAL_HD V lane_sum(V x) {
  return fold_lanes<S>(x, [](V a, V b) { return a + b; });
}
template <class S, class V>
VAAL_HD V lane_max(V x) {
  return fold_lanes<S>(x, [](V a, V b) { return larger(a, b); });
}
template <class S, class V>
VAAL_HD V lane_min(V x) {
  return fold_lanes<S>(x, [](V a, V b) { return smaller(a, b); });
}

// A square of kLanes registers transposed: for h = 1, 2, 4, ... the registers i and i + h exchange
// the lanes whose number has the bit h against those that have it not.
template <class S, int h = 1>
VAAL_HD void transpose(typename Register<S>::V (&square)[Register<S>::kLanes]) {
  constexpr int kLanes = Register<S>::kLanes;
  VAAL_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    if (i & h) continue;
    const auto a = square[i], b = square[i + h];
    square[i] = shuffle(a, b, [](int lane) { return lane & h ? (lane ^ h) + kLanes : lane; });
    square[i + h] = shuffle(a, b, [](int lane) { return lane & h ? lane + kLanes : lane ^ h; });
  }
  if constexpr (2 * h < kLanes) transpose<S, 2 * h>(square);
}

// Whether a comparison held in any lane.
template <class I>
VAAL_HD bool any_lane(I mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(__m512i(mask)) != 0;  // a lane of 64 bits is two equal ones of 32
#elif defined(__AVX2__)
  return _mm256_movemask_epi8(__m256i(mask)) != 0;
#else
  const auto pair = bits_as<Register<double>::I>(mask);
  return (pair[0] | pair[1]) != 0;
#endif
}

}  // namespace vaal::VAAL_ISA
