// The device primitives of csrc/cuda/device.cuh on the CPU, for tests: found first on the include
// path, so that g++ compiles the kernels as they stand. See fibres.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../fibres.h"
#include "../launches.h"

#define VAAL_DEVICE inline
#define VAAL_KERNEL(max_threads) void
#define VAAL_KERNEL_OF(max_threads, blocks) void

struct CUstream_st;

namespace vaal {

using Stream = CUstream_st*;

inline int64_t block_index() { return emulation::block().index; }
inline int64_t block_count() { return emulation::block().count; }
inline int thread_index() { return emulation::thread(); }
inline int thread_count() { return emulation::block().threads; }
inline void barrier() { emulation::barrier(); }
inline uint32_t shuffle_xor(uint32_t word, int flip) { return emulation::shuffle_xor(word, flip); }
inline bool any_lane(bool x) {
  uint32_t word = x;
  for (int flip = 16; flip > 0; flip /= 2) word |= shuffle_xor(word, flip);
  return word != 0;
}

template <class T>
class SharedArray {
 public:
  explicit SharedArray(int first_byte) : first_byte_(first_byte) {
    if (first_byte % 16 != 0) emulation::fail("a misaligned shared array");
  }
  T load(int i) const {
    T item;
    emulation::read_shared(byte(i), &item, sizeof(T));
    return item;
  }
  void store(int i, const T& item) const { emulation::write_shared(byte(i), &item, sizeof(T)); }

 private:
  int64_t byte(int i) const { return first_byte_ + int64_t{i} * sizeof(T); }
  int first_byte_;
};

struct alignas(16) Pack {
  uint32_t word[4];
};

inline void check_aligned(const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0)
    emulation::fail("a 16-byte access to a misaligned address");
}
inline Pack load_pack(const void* address) {
  check_aligned(address);
  emulation::traffic.loaded += sizeof(Pack);
  Pack pack;
  std::memcpy(&pack, address, sizeof(pack));
  return pack;
}
inline void store_pack(void* address, const Pack& pack) {
  check_aligned(address);
  emulation::traffic.stored += sizeof(Pack);
  std::memcpy(address, &pack, sizeof(pack));
}
template <class T>
inline T load_one(const T* address) {
  return *address;
}

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
inline float bits_to_float(uint32_t bits) { return bits_as<float>(bits); }
inline uint32_t float_to_bits(float value) { return bits_as<uint32_t>(value); }
inline double bits_to_double(uint32_t low, uint32_t high) {
  return bits_as<double>(uint64_t{high} << 32 | low);
}
inline uint32_t low_bits(double value) { return static_cast<uint32_t>(bits_as<uint64_t>(value)); }
inline uint32_t high_bits(double value) {
  return static_cast<uint32_t>(bits_as<uint64_t>(value) >> 32);
}
inline float half_to_float(uint16_t bits) { return static_cast<float>(bits_as<_Float16>(bits)); }
inline uint16_t float_to_half(float value) {
  return bits_as<uint16_t>(static_cast<_Float16>(value));
}
// To the nearest, ties to even.
inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = float_to_bits(value);
  if (value != value) return 0x7FFF;
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

template <class S>
struct CudaMath {
  using Scalar = S;
  static S exp(S x) { return std::exp(x); }
  static S exp2_approx(S x) { return std::exp2(x); }
  static S reciprocal_approx(S x) { return 1 / x; }
  static S expm1(S x) { return std::expm1(x); }
  static S exp_or_expm1(bool which, S x, S y) { return which ? exp(x) : expm1(y); }
  static S log1p(S x) { return std::log1p(x); }
  static S log(S x) { return std::log(x); }
  static S sqrt(S x) { return std::sqrt(x); }
  static S fma(S x, S y, S z) { return std::fma(x, y, z); }
  static S max(S x, S y) { return std::fmax(x, y); }
  static S abs(S x) { return std::fabs(x); }
  static void sincos_turn(S turn, S& sine, S& cosine) {
    const double angle = 6.283185307179586476925286766559 * static_cast<double>(turn);
    sine = static_cast<S>(std::sin(angle));
    cosine = static_cast<S>(std::cos(angle));
  }
  static S from_uint23(uint32_t word) { return static_cast<S>(word); }
  static void mul_wide(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) {
    const uint64_t product = uint64_t{a} * b;
    high = static_cast<uint32_t>(product >> 32);
    low = static_cast<uint32_t>(product);
  }
};

struct LaunchShape {
  int64_t blocks;
  int threads;
  int shared_bytes;
  Stream stream;
};

namespace emulation {
inline Order launch_order = Order::kForward;
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Parameters... arguments) {
  if (emulation::written_down(kernel, shape.blocks, shape.threads, shape.shared_bytes,
                              arguments...))
    return;
  if (emulation::before_launch != nullptr &&
      !emulation::before_launch(shape.blocks, shape.threads, shape.shared_bytes, shape.stream))
    return;
  const auto call = [&] { kernel(arguments...); };
  const auto body = [](const void* context) { (*static_cast<decltype(&call)>(context))(); };
  for (int64_t block = 0; block < shape.blocks; ++block)
    emulation::run_block(
        {block, shape.blocks, shape.threads, shape.shared_bytes, emulation::launch_order}, body,
        &call);
  if (emulation::after_launch != nullptr) emulation::after_launch();
}

}  // namespace vaal
