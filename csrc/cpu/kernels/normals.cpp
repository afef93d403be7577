// Standard normals on demand: the counters of Philox fill the lanes, Box and Muller's formula makes
// normals of its words. The formulas are in csrc/math/philox.h.

#include "cpu/kernels.h"
#include "cpu/kernels/elementary.h"
#include "cpu/kernels/lanes.h"
#include "math/philox.h"

namespace vaal::VAAL_ISA {
namespace {

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
#elif defined(__aarch64__)
    return Pairs(vmull_u32(vmovn_u64(uint64x2_t(a)), vdup_n_u32(b)));
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
  constexpr int kLanes = Register<S>::kLanes;
  first = shuffle(a, b, [](int lane) { return lane / 2 + lane % 2 * kLanes; });
  second = shuffle(a, b, [](int lane) { return (lane + kLanes) / 2 + lane % 2 * kLanes; });
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

void normals(const NormalArguments& args, void* out) {
  args.storage == Storage::kFloat64 ? fill_normals(args, static_cast<double*>(out))
                                    : fill_normals(args, static_cast<float*>(out));
}

void short_normals(const ShortNormalArguments& args, void* out) {
  args.storage == Storage::kFloat64 ? fill_short_normals(args, static_cast<double*>(out))
                                    : fill_short_normals(args, static_cast<float*>(out));
}

}  // namespace vaal::VAAL_ISA
