// The device primitives of the kernels, all in this one header: where a thread stands, barriers,
// warp shuffles, shared memory, 16-byte accesses, half types, elementary functions, the launch.
//
// The kernels use nothing of CUDA besides. A header of the same name that gives these primitives
// on the CPU (python_tests/emulation) can stand in its place in front of the include path: the
// tests run every kernel that way, on machines without a GPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define VAAL_DEVICE __device__ __forceinline__
#define VAAL_KERNEL(max_threads) VAAL_KERNEL_OF(max_threads, 1)
// Registers are kept few enough for `blocks` of them on a multiprocessor: one waits at its barrier
// while another computes.
#define VAAL_KERNEL_OF(max_threads, blocks) __global__ void __launch_bounds__(max_threads, blocks)

namespace vaal {

using Stream = cudaStream_t;

// --- Where a thread stands -----------------------------------------------------------------------
VAAL_DEVICE int64_t block_index() { return blockIdx.x; }
VAAL_DEVICE int64_t block_count() { return gridDim.x; }
VAAL_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
VAAL_DEVICE int thread_count() { return static_cast<int>(blockDim.x); }

// --- Threads of a block together -----------------------------------------------------------------
// Every thread of the block must come here.
VAAL_DEVICE void barrier() { __syncthreads(); }

// The word of the lane whose number differs by `flip`, and whether x holds in any lane. All 32 lanes
// must come here: with a mask that is known when the kernel is compiled a shuffle is one instruction.
VAAL_DEVICE uint32_t shuffle_xor(uint32_t word, int flip) {
  return __shfl_xor_sync(0xFFFFFFFFu, word, flip);
}
VAAL_DEVICE bool any_lane(bool x) { return __any_sync(0xFFFFFFFFu, x); }

// T's in the block's dynamic shared memory, from byte `first_byte` (a multiple of 16) on. What one
// thread stores there, another may load behind a barrier.
template <class T>
class SharedArray {
 public:
  VAAL_DEVICE explicit SharedArray(int first_byte) {
    extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];
    items_ = reinterpret_cast<T*>(dynamic_shared_memory + first_byte);
  }
  VAAL_DEVICE T load(int i) const { return items_[i]; }
  VAAL_DEVICE void store(int i, const T& item) const { items_[i] = item; }

 private:
  T* items_;
};

// --- Memory --------------------------------------------------------------------------------------
struct alignas(16) Pack {
  uint32_t word[4];
};

// 16 bytes of an input. The address is a multiple of 16, and the kernel writes nothing there.
VAAL_DEVICE Pack load_pack(const void* address) {
  const uint4 raw = __ldg(static_cast<const uint4*>(address));
  return {{raw.x, raw.y, raw.z, raw.w}};
}

template <class T>
VAAL_DEVICE T load_one(const T* address) {
  return *address;
}

// Spelled out: of a plain assignment the compiler may make four stores, and the store intrinsics
// carry an ordering that nobody asks for.
VAAL_DEVICE void store_pack(void* address, const Pack& pack) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(address)),
               "r"(pack.word[0]), "r"(pack.word[1]), "r"(pack.word[2]), "r"(pack.word[3])
               : "memory");
}

// --- Half types: storage as bits, arithmetic in float --------------------------------------------
VAAL_DEVICE float half_to_float(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
VAAL_DEVICE uint16_t float_to_half(float value) { return __half_as_ushort(__float2half_rn(value)); }
VAAL_DEVICE uint16_t float_to_bfloat16(float value) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

VAAL_DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
VAAL_DEVICE uint32_t float_to_bits(float value) { return __float_as_uint(value); }
VAAL_DEVICE double bits_to_double(uint32_t low, uint32_t high) {
  return __hiloint2double(static_cast<int>(high), static_cast<int>(low));
}
VAAL_DEVICE uint32_t low_bits(double value) { return static_cast<uint32_t>(__double2loint(value)); }
VAAL_DEVICE uint32_t high_bits(double value) {
  return static_cast<uint32_t>(__double2hiint(value));
}

// --- Elementary functions: what csrc/math asks of its policy M -----------------------------------
template <class S>
struct CudaMath;

struct CudaWords {
  static VAAL_DEVICE void mul_wide(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) {
    high = __umulhi(a, b);
    low = a * b;
  }
};

template <>
struct CudaMath<float> : CudaWords {
  using Scalar = float;
  static VAAL_DEVICE float exp(float x) { return ::expf(x); }
  // 2^x by the instruction that there is for it, subnormal results as 0.
  static VAAL_DEVICE float exp2_approx(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
  }
  // 1/x to a rounding or two, subnormal numbers as 0.
  static VAAL_DEVICE float reciprocal_approx(float x) {
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
  }
  static VAAL_DEVICE float expm1(float x) { return ::expm1f(x); }
  static VAAL_DEVICE float exp_or_expm1(bool which, float x, float y) {
    return which ? ::expf(x) : ::expm1f(y);
  }
  static VAAL_DEVICE float log1p(float x) { return ::log1pf(x); }
  static VAAL_DEVICE float log(float x) { return ::logf(x); }
  static VAAL_DEVICE float sqrt(float x) { return ::sqrtf(x); }
  static VAAL_DEVICE float fma(float x, float y, float z) { return ::fmaf(x, y, z); }
  static VAAL_DEVICE float max(float x, float y) { return ::fmaxf(x, y); }
  static VAAL_DEVICE float abs(float x) { return ::fabsf(x); }
  static VAAL_DEVICE void sincos_turn(float turn, float& sine, float& cosine) {
    ::sincospif(2 * turn, &sine, &cosine);
  }
  // 2^23 + word is exact, and the addition is cheaper than a conversion.
  static VAAL_DEVICE float from_uint23(uint32_t word) {
    return __uint_as_float(0x4B000000u | word) - 8388608.0f;
  }
};

template <>
struct CudaMath<double> : CudaWords {
  using Scalar = double;
  static VAAL_DEVICE double exp(double x) { return ::exp(x); }
  static VAAL_DEVICE double reciprocal_approx(double x) { return 1 / x; }
  static VAAL_DEVICE double expm1(double x) { return ::expm1(x); }
  static VAAL_DEVICE double exp_or_expm1(bool which, double x, double y) {
    return which ? ::exp(x) : ::expm1(y);
  }
  static VAAL_DEVICE double log1p(double x) { return ::log1p(x); }
  static VAAL_DEVICE double log(double x) { return ::log(x); }
  static VAAL_DEVICE double sqrt(double x) { return ::sqrt(x); }
  static VAAL_DEVICE double fma(double x, double y, double z) { return ::fma(x, y, z); }
  static VAAL_DEVICE double max(double x, double y) { return ::fmax(x, y); }
  static VAAL_DEVICE double abs(double x) { return ::fabs(x); }
  static VAAL_DEVICE void sincos_turn(double turn, double& sine, double& cosine) {
    ::sincospi(2 * turn, &sine, &cosine);
  }
  static VAAL_DEVICE double from_uint23(uint32_t word) { return static_cast<double>(word); }
};

// --- The launch ----------------------------------------------------------------------------------
struct LaunchShape {
  int64_t blocks;
  int threads;
  int shared_bytes;
  Stream stream;
};

// Errors are left for cudaGetLastError(), which the caller asks once after its launches.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Parameters... arguments) {
  constexpr int kGrantedWithoutAsking = 48 * 1024;
  if (shape.shared_bytes > kGrantedWithoutAsking) {
    // A ceiling, so all that the device allows: a smaller launch of another host thread must not
    // lower it between this and the launch.
    int device = 0, most = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
  }
  kernel<<<static_cast<unsigned>(shape.blocks), shape.threads, shape.shared_bytes, shape.stream>>>(
      arguments...);
}

}  // namespace vaal
