// The types that tensors are stored in, for host and device.
#pragma once

#include <cstdint>
#include <type_traits>

namespace vaal {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type of the arithmetic, and of the results that a row has one of.
template <class T>
using Scalar = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Elements in 16 bytes.
template <class T>
constexpr int kPackItems = 16 / static_cast<int>(sizeof(T));

// X(T) for each of them.
#define VAAL_FOR_STORAGE_TYPES(X) X(float) X(double) X(Half) X(BFloat16)

}  // namespace vaal
