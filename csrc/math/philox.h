// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011) and the Box–Muller pairs made from it.
//
// Element e of the sample with dataset index i is a function of (seed, i, e) alone:
//   counter = (e/4 low, e/4 high, i low, i high)    key = (seed low, seed high)
// The block's four words w0..w3 become uniforms U = ((w >> 9) + 1/2)·2^-23, exact in float32, and
//   n0, n1 = √(−2 ln U0)·(cos 2πU1, sin 2πU1)       n2, n3 likewise from U2, U3.
// U is a 32-bit lane (uint32_t, or a register of them); M::mul_wide gives the 64-bit product.
#pragma once

#include <cstdint>

#include "math/macros.h"

namespace vaal {

template <class U>
struct PhiloxBlock {
  U word[4];
};

template <class M, class U>
VAAL_HD PhiloxBlock<U> philox4x32_10(PhiloxBlock<U> counter, uint32_t key0, uint32_t key1) {
  U c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    U hi0, lo0, hi1, lo1;
    M::mul_wide(c0, 0xD2511F53u, hi0, lo0);
    M::mul_wide(c2, 0xCD9E8D57u, hi1, lo1);
    c0 = hi1 ^ c1 ^ key0;
    c1 = lo1;
    c2 = hi0 ^ c3 ^ key1;
    c3 = lo0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Two standard normals from two words.
template <class M, class V, class U>
VAAL_HD void box_muller(U radial, U angle, V& n0, V& n1) {
  using S = typename M::Scalar;
  const V u = (M::from_uint23(radial >> 9) + S(0.5)) * S(1.0 / 8388608.0);
  const V turn = (M::from_uint23(angle >> 9) + S(0.5)) * S(1.0 / 8388608.0);
  V sine, cosine;
  M::sincos_turn(turn, sine, cosine);
  const V length = M::sqrt(-2 * M::log(u));
  n0 = length * cosine;
  n1 = length * sine;
}

}  // namespace vaal
