// The pieces of perturb and random_perturb: a norm, a scaled addition, and normals on demand.
//
//   perturb:         out = x + radius · d/‖d‖₂            per sample, d given
//   random_perturb:  out = x + radius · n/‖n‖₂            per sample, n ~ N(0, I) from Philox
//
// sample_ops.cpp cuts long samples into chunks of fixed size, so the result does not depend on the
// number of threads.

#include <math.h>

#include "../math/philox.h"
#include "elementary.h"
#include "kernels.h"

namespace vaal::VAAL_ISA {
namespace {

// float squared fits double with room on both sides: no scaling pass is needed.
template <class T>
NormPart norm_as_double(const T* direction, int64_t count) {
  using R = Register<float>;
  typedef float HalfV __attribute__((vector_size(sizeof(R::V) / 2)));
  using D = Register<double>::V;
  constexpr int kChains = 4;  // sums that do not wait for one another
  D low[kChains] = {}, high[kChains] = {};
  const auto square = [&](R::V d, int chain) {
    HalfV part[2];
    memcpy(part, &d, sizeof(d));
    const D first = __builtin_convertvector(part[0], D), second = __builtin_convertvector(part[1], D);
    low[chain] += first * first;
    high[chain] += second * second;
  };
  int64_t i = 0;
  for (; i + kChains * R::kLanes <= count; i += kChains * R::kLanes)
    for (int chain = 0; chain < kChains; ++chain)
      square(load(direction + i + chain * R::kLanes), chain);
  for (; i + R::kLanes <= count; i += R::kLanes) square(load(direction + i), 0);
  if (i < count) square(load_some<float>(direction + i, count - i, 0.0f), 0);
  const D sum = ((low[0] + low[1]) + (low[2] + low[3])) + ((high[0] + high[1]) + (high[2] + high[3]));
  return {1.0, lane_sum<double>(sum)[0]};
}

// double: divided by the largest magnitude (a power of two near it) before squaring.
NormPart norm_scaled(const double* direction, int64_t count) {
  using R = Register<double>;
  R::V peak{}, unordered{};
  for (int64_t i = 0; i < count; i += R::kLanes) {
    const R::V d = i + R::kLanes <= count ? load(direction + i)
                                          : load_some<double>(direction + i, count - i, 0.0);
    peak = larger(magnitude<double>(d), peak);
    unordered += d - d;  // NaN if any element is NaN or infinite
  }
  const double largest = lane_max<double>(peak)[0], stray = lane_sum<double>(unordered)[0];
  if (largest == 0 || stray != 0) return {1.0, largest + stray};
  const int exponent = ilogb(largest);
  const double first = ldexp(1.0, -exponent / 2), second = ldexp(1.0, -exponent - -exponent / 2);
  R::V sum{};
  for (int64_t i = 0; i < count; i += R::kLanes) {
    const R::V d = i + R::kLanes <= count ? load(direction + i)
                                          : load_some<double>(direction + i, count - i, 0.0);
    const R::V unit = d * first * second;
    sum += unit * unit;
  }
  return {ldexp(1.0, exponent), lane_sum<double>(sum)[0]};
}

template <class T, class S>
NormPart norm(const void* direction, int64_t count) {
  if constexpr (sizeof(S) == 8) return norm_scaled(static_cast<const double*>(direction), count);
  else return norm_as_double(static_cast<const T*>(direction), count);
}

// factor = 2^whole · fraction; the power is split so that neither half leaves S's range.
template <class T, class Direction, class S>
void add(const T* x, const Direction* direction, T* out, int64_t count, double factor) {
  using R = Register<S>;
  int exponent;
  const double fraction = frexp(factor, &exponent);
  const S first = S(ldexp(1.0, exponent / 2));
  const S second = S(ldexp(fraction, exponent - exponent / 2));
  int64_t i = 0;
  for (; i + R::kLanes <= count; i += R::kLanes)
    store(out + i, load(x + i) + load(direction + i) * first * second);
  if (i < count)
    store_some<S>(out + i,
                  load_some<S>(x + i, count - i, S(0)) +
                      load_some<S>(direction + i, count - i, S(0)) * first * second,
                  count - i);
}

template <class T, class S>
void add_to(const void* x, const void* direction, void* out, int64_t count, double factor) {
  add<T, T, S>(static_cast<const T*>(x), static_cast<const T*>(direction), static_cast<T*>(out),
               count, factor);
}

template <class T, class S>
void add_normals_to(const void* x, const void* normals, void* out, int64_t count, double factor) {
  add<T, S, S>(static_cast<const T*>(x), static_cast<const S*>(normals), static_cast<T*>(out),
               count, factor);
}

// 32-bit words, one a lane, for Philox; the products' halves are taken lane by lane.
struct WordMath {
  static constexpr int kLanes = Register<float>::kLanes;
  typedef uint32_t U __attribute__((vector_size(VAAL_REGISTER_BYTES)));
  static VAAL_HD void mul_wide(U a, uint32_t b, U& high, U& low) {
    low = a * b;
#if defined(__AVX512F__)
    const __m512i factor = _mm512_set1_epi32(int(b));
    const __m512i even = _mm512_mul_epu32(__m512i(a), factor);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(__m512i(a), 32), factor);
    high = U(_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd));
#elif defined(__AVX2__)
    const __m256i factor = _mm256_set1_epi32(int(b));
    const __m256i even = _mm256_mul_epu32(__m256i(a), factor);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(__m256i(a), 32), factor);
    high = U(_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA));
#else
    for (int lane = 0; lane < kLanes; ++lane) high[lane] = uint64_t(a[lane]) * b >> 32;
#endif
  }
};

template <class S>
struct NormalMath : SimdMath<S> {
  typedef uint32_t Words __attribute__((vector_size(4 * Register<S>::kLanes)));
  static VAAL_HD typename Register<S>::V from_uint23(Words word) {
    return __builtin_convertvector(word, typename Register<S>::V);
  }
};

template <class S>
void fill_normals(const NormalArguments& args, S* out) {
  using W = WordMath;
  using R = Register<S>;
  using Words = typename NormalMath<S>::Words;
  const uint32_t index_low = uint32_t(args.sample), index_high = uint32_t(args.sample >> 32);
  const uint64_t first_block = uint64_t(args.begin) / 4;
  const int64_t blocks = (args.count + 3) / 4;
  for (int64_t block = 0; block < blocks; block += W::kLanes) {
    PhiloxBlock<W::U> counter;
    for (int lane = 0; lane < W::kLanes; ++lane) {
      const uint64_t number = first_block + uint64_t(block + lane);
      counter.word[0][lane] = uint32_t(number);
      counter.word[1][lane] = uint32_t(number >> 32);
    }
    counter.word[2] = W::U{} + index_low;
    counter.word[3] = W::U{} + index_high;
    const auto random = philox4x32_10<W>(counter, uint32_t(args.seed), uint32_t(args.seed >> 32));
    S normal[4][W::kLanes];
    for (int part = 0; part < W::kLanes; part += R::kLanes) {
      Words word[4];
      for (int i = 0; i < 4; ++i)
        memcpy(&word[i], reinterpret_cast<const char*>(&random.word[i]) + 4 * part, sizeof(Words));
      for (int pair = 0; pair < 2; ++pair) {
        typename R::V n0, n1;
        box_muller<NormalMath<S>>(word[2 * pair], word[2 * pair + 1], n0, n1);
        store(&normal[2 * pair][part], n0);
        store(&normal[2 * pair + 1][part], n1);
      }
    }
    const int64_t left = args.count - 4 * block;
    S* to = out + 4 * block;
    if (left >= 4 * W::kLanes) {
      for (int lane = 0; lane < W::kLanes; ++lane)
        for (int i = 0; i < 4; ++i) to[4 * lane + i] = normal[i][lane];
    } else {
      for (int64_t e = 0; e < left; ++e) to[e] = normal[e % 4][e / 4];
    }
  }
}

}  // namespace

NormPart norm_part(const void* direction, int64_t count, Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, norm, direction, count);
}

void add_scaled(const void* x, const void* direction, void* out, int64_t count, double factor,
                Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, add_to, x, direction, out, count, factor);
}

void normals(const NormalArguments& args, void* out) {
  args.storage == Storage::kFloat64 ? fill_normals(args, static_cast<double*>(out))
                                    : fill_normals(args, static_cast<float*>(out));
}

void add_scaled_normals(const void* x, const void* normals, void* out, int64_t count, double factor,
                        Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, add_normals_to, x, normals, out, count, factor);
}

}  // namespace vaal::VAAL_ISA
