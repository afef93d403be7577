// The pieces of the ops over samples: a norm, a scaled addition, a scaling, and normals on demand.
//
//   perturb:         out = x + radius · d/‖d‖₂            per sample, d given
//   random_perturb:  out = x + radius · n/‖n‖₂            per sample, n ~ N(0, I) from Philox
//   deepfool_step:   out = distance · w/‖w‖₂              per sample, w chosen
//
// cpu/sample_ops.cpp and cpu/deepfool_ops.cpp cut long samples into chunks of fixed size (samples.h), so
// the result does not depend on the number of threads.

#include <math.h>

#include "cpu/kernels.h"
#include "cpu/kernels/elementary.h"
#include "math/philox.h"

namespace vaal::VAAL_ISA {
namespace {

// Σ d² of floats. Squares of a few elements are added in float, such sums in double: as good as
// double throughout, at half the price. Where the result is near the ends of float's range (or NaN)
// squares may have left it, and double is used throughout: no scaling pass is needed.
template <bool kExact, class T>
double sum_of_squares(const T* direction, int64_t count) {
  using R = Register<float>;
  typedef float HalfV __attribute__((vector_size(sizeof(R::V) / 2)));
  using D = Register<double>::V;
  constexpr int kChains = 8;  // sums that do not wait for one another
  D total[2] = {};
  const auto add = [&](R::V x, R::V y) {
    HalfV part[2][2];
    memcpy(part[0], &x, sizeof(x));
    memcpy(part[1], &y, sizeof(y));
    for (int half = 0; half < 2; ++half)
      total[half] += __builtin_convertvector(part[0][half], D) *
                     __builtin_convertvector(part[1][half], D);
  };
  const R::V one = broadcast<float>(1.0f);
  int64_t i = 0;
  const auto blocks = [&](auto steps) __attribute__((always_inline)) {  // so many added in float
    constexpr int64_t kBlock = steps() * kChains * R::kLanes;
    for (; i + kBlock <= count; i += kBlock) {
      R::V sum[kChains] = {};
      for (int step = 0; step < steps(); ++step)
        for (int chain = 0; chain < kChains; ++chain) {
          const T* const at = direction + i + (step * kChains + chain) * R::kLanes;
          prefetch_page_after(at);
          const R::V d = load(at);
          sum[chain] += d * d;
        }
      for (int width = kChains / 2; width > 0; width /= 2)
        for (int chain = 0; chain < width; ++chain) sum[chain] += sum[chain + width];
      add(sum[0], one);
    }
  };
  if constexpr (!kExact) {
    blocks([]() constexpr { return 4; });
    blocks([]() constexpr { return 1; });
  }
  for (; i + R::kLanes <= count; i += R::kLanes) {
    prefetch_page_after(direction + i);
    const R::V d = load(direction + i);
    add(d, d);
  }
  if (i < count) {
    const R::V d = load_some<float>(direction + i, count - i, 0.0f);
    add(d, d);
  }
  return lane_sum<double>(total[0] + total[1])[0];
}

template <class T>
NormPart norm_of_floats(const T* direction, int64_t count) {
  const double quick = sum_of_squares<false>(direction, count);
  const bool inside = quick > 1e-24 && quick < 1e36;
  return {1.0, inside ? quick : sum_of_squares<true>(direction, count)};
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
  else return norm_of_floats(static_cast<const T*>(direction), count);
}

// The power of two is split, so that neither half leaves S's range.
template <class T, class Direction, class S>
void add(const T* x, const Direction* direction, T* out, int64_t count, Factor factor) {
  using R = Register<S>;
  int exponent;
  const double fraction = frexp(factor.fraction, &exponent);
  exponent += factor.exponent;
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
void add_to(const void* x, const void* direction, void* out, int64_t count, Factor factor) {
  add<T, T, S>(static_cast<const T*>(x), static_cast<const T*>(direction), static_cast<T*>(out),
               count, factor);
}

template <class T, class S>
void add_normals_to(const void* x, const void* normals, void* out, int64_t count, Factor factor) {
  add<T, S, S>(static_cast<const T*>(x), static_cast<const S*>(normals), static_cast<T*>(out),
               count, factor);
}

// The power of two is split, so that neither half leaves S's range.
template <class T, class S>
void scale_to(const void* from, void* to, int64_t count, int exponent, double factor) {
  using R = Register<S>;
  const T* in = static_cast<const T*>(from);
  T* out = static_cast<T*>(to);
  const S first = S(ldexp(1.0, -exponent / 2)), second = S(ldexp(1.0, -exponent - -exponent / 2));
  int64_t i = 0;
  for (; i + R::kLanes <= count; i += R::kLanes)
    store(out + i, load(in + i) * first * second * S(factor));
  if (i < count)
    store_some<S>(out + i, load_some<S>(in + i, count - i, S(0)) * first * second * S(factor),
                  count - i);
}

// kLanes 32-bit words for Philox. Even and odd lanes apart, each in 64 bits of which the upper half
// is arbitrary: so a product keeps the place of its factor and its low half needs no extraction.
struct WordMath {
  static constexpr int kLanes = Register<float>::kLanes;
  typedef uint64_t Pairs __attribute__((vector_size(VAAL_REGISTER_BYTES)));
  typedef uint32_t Words __attribute__((vector_size(VAAL_REGISTER_BYTES)));
  struct U {
    Pairs even, odd;
    friend VAAL_HD U operator^(U a, U b) { return {a.even ^ b.even, a.odd ^ b.odd}; }
    friend VAAL_HD U operator^(U a, uint32_t b) {
      return {a.even ^ uint64_t(b), a.odd ^ uint64_t(b)};
    }
  };
  static VAAL_HD U split(Words words) {
    const Pairs pairs = bits_as<Pairs>(words);
    return {pairs, pairs >> 32};
  }
  static VAAL_HD Words join(U x) { return bits_as<Words>((x.even & 0xffffffffu) | (x.odd << 32)); }
  static VAAL_HD Pairs product(Pairs a, uint32_t b) {
#if defined(__AVX512F__)
    return Pairs(_mm512_mul_epu32(__m512i(a), _mm512_set1_epi64(b)));
#elif defined(__AVX2__)
    return Pairs(_mm256_mul_epu32(__m256i(a), _mm256_set1_epi64x(b)));
#else
    return (a & 0xffffffffu) * uint64_t(b);
#endif
  }
  static VAAL_HD void mul_wide(U a, uint32_t b, U& high, U& low) {
    low = {product(a.even, b), product(a.odd, b)};
    high = {low.even >> 32, low.odd >> 32};
  }
};

template <class S>
struct NormalMath : SimdMath<S> {
  typedef uint32_t Words __attribute__((vector_size(4 * Register<S>::kLanes)));
  static VAAL_HD typename Register<S>::V from_uint23(Words word) {
    return __builtin_convertvector(word, typename Register<S>::V);
  }
};

// a0 b0 a1 b1 ..., the first register of it and the second.
template <class S>
VAAL_HD void zip(typename Register<S>::V a, typename Register<S>::V b,
                 typename Register<S>::V& first, typename Register<S>::V& second) {
  using Lane = typename Register<S>::Lane;
  constexpr int kLanes = Register<S>::kLanes;
  const auto lane = lane_numbers<S>();
  const auto from = lane / 2 + (lane & 1) * Lane(kLanes);
  first = __builtin_shuffle(a, b, from);
  second = __builtin_shuffle(a, b, from + Lane(kLanes / 2));
}

constexpr int64_t kBatch = 4 * WordMath::kLanes;  // normals of one Philox call

// Lane l of the counter gives elements 4l to 4l + 3 of out.
template <class S>
VAAL_HD void normals_of(const PhiloxBlock<WordMath::U>& counter, uint64_t seed, S* out) {
  using W = WordMath;
  using R = Register<S>;
  using V = typename R::V;
  using Words = typename NormalMath<S>::Words;
  const auto random = philox4x32_10<W>(counter, uint32_t(seed), uint32_t(seed >> 32));
  W::Words words[4];
  for (int i = 0; i < 4; ++i) words[i] = W::join(random.word[i]);
  for (int part = 0; part < W::kLanes; part += R::kLanes) {
    Words word[4];
    for (int i = 0; i < 4; ++i)
      memcpy(&word[i], reinterpret_cast<const char*>(&words[i]) + 4 * part, sizeof(Words));
    V n0, n1, n2, n3;
    box_muller<NormalMath<S>>(word[0], word[1], n0, n1);
    box_muller<NormalMath<S>>(word[2], word[3], n2, n3);
    V even[2], odd[2], line[4];
    zip<S>(n0, n2, even[0], even[1]);
    zip<S>(n1, n3, odd[0], odd[1]);
    zip<S>(even[0], odd[0], line[0], line[1]);
    zip<S>(even[1], odd[1], line[2], line[3]);
    for (int i = 0; i < 4; ++i) store(out + 4 * part + i * R::kLanes, line[i]);
  }
}

template <class S>
void fill_normals(const NormalArguments& args, S* out) {
  using W = WordMath;
  const auto broadcast_word = [](uint64_t word) { return W::split(W::Words{} + uint32_t(word)); };
  const W::U index_low = broadcast_word(args.sample);
  const W::U index_high = broadcast_word(args.sample >> 32);
  const W::Words lane = bits_as<W::Words>(lane_numbers<float>());
  S rest[kBatch];
  for (int64_t done = 0; done < args.count; done += kBatch) {
    const uint64_t number = uint64_t(args.begin + done) / 4;  // of the first lane's block
    const W::Words low = lane + uint32_t(number);
    const W::Words carry = bits_as<W::Words>(low < lane) & 1;
    const W::Words high = carry + uint32_t(number >> 32);
    const int64_t left = args.count - done;
    normals_of<S>({{W::split(low), W::split(high), index_low, index_high}}, args.seed,
                  left >= kBatch ? out + done : rest);
    if (left < kBatch) memcpy(out + done, rest, left * sizeof(S));
  }
}

// Blocks of all samples fill the lanes one after the other.
template <class S>
void fill_short_normals(const ShortNormalArguments& args, S* out) {
  using W = WordMath;
  const int64_t blocks = (args.count + 3) / 4;
  int64_t sample = 0, block = 0;
  for (int64_t done = 0; done < args.samples * blocks; done += W::kLanes) {
    W::Words number{}, low{}, high{};
    for (int lane = 0; lane < W::kLanes && sample < args.samples; ++lane) {
      const uint64_t index = uint64_t(args.sample[sample * args.stride]);
      number[lane] = uint32_t(block);
      low[lane] = uint32_t(index);
      high[lane] = uint32_t(index >> 32);
      if (++block == blocks) {
        block = 0;
        ++sample;
      }
    }
    normals_of<S>({{W::split(number), W::split(W::Words{}), W::split(low), W::split(high)}},
                  args.seed, out + 4 * done);
  }
}

}  // namespace

NormPart norm_part(const void* direction, int64_t count, Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, norm, direction, count);
}

void add_scaled(const void* x, const void* direction, void* out, int64_t count, Factor factor,
                Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, add_to, x, direction, out, count, factor);
}

void scaled(const void* from, void* out, int64_t count, int exponent, double factor,
            Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, scale_to, from, out, count, exponent, factor);
}

void normals(const NormalArguments& args, void* out) {
  args.storage == Storage::kFloat64 ? fill_normals(args, static_cast<double*>(out))
                                    : fill_normals(args, static_cast<float*>(out));
}

void short_normals(const ShortNormalArguments& args, void* out) {
  args.storage == Storage::kFloat64 ? fill_short_normals(args, static_cast<double*>(out))
                                    : fill_short_normals(args, static_cast<float*>(out));
}

void add_scaled_normals(const void* x, const void* normals, void* out, int64_t count, Factor factor,
                        Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, add_normals_to, x, normals, out, count, factor);
}

}  // namespace vaal::VAAL_ISA
