// What the CPU ops share: the chosen kernels, storage types, pages, the grain of the threads.
#pragma once

#include <algorithm>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "cpu/kernels.h"
#include "tensors.h"

namespace vaal {

// The widest instruction set that this processor runs (choose.cpp).
const Kernels& kernels();

inline Storage storage_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return Storage::kFloat32;
    case ScalarType::Double: return Storage::kFloat64;
    case ScalarType::BFloat16: return Storage::kBFloat16;
    case ScalarType::Half: return Storage::kFloat16;
    default: STD_TORCH_CHECK(false, "vaal: expected float32, float64, bfloat16 or float16");
  }
}

inline int64_t element_bytes(Storage storage) {
  return storage == Storage::kFloat64 ? 8 : storage == Storage::kFloat32 ? 4 : 2;
}

// Memory this large comes fresh from the kernel at every allocation; in pages of 4 KiB the page
// faults cost more than the arithmetic. Advice only: where it is not taken nothing changes.
inline void prefer_huge_pages([[maybe_unused]] const Tensor& x) {
#if defined(__linux__)
  constexpr uintptr_t kPage = uintptr_t(1) << 21, kLarge = uintptr_t(1) << 25;
  const uintptr_t bytes = uintptr_t(x.numel()) * element_bytes(storage_of(x));
  if (bytes < kLarge) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(x.mutable_data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Rows a thread should at least get: below about 8192 elements waking it costs more than it does.
inline int64_t grain(int64_t cols) {
  return std::max<int64_t>(1, 8192 / std::max<int64_t>(1, cols));
}

}  // namespace vaal
