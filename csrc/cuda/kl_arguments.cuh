// What the kernels of symmetric_kl, its backward and its direction are called with.
#pragma once

#include <cstdint>

#include "cuda/launch_plan.h"
#include "cuda/storage.cuh"

namespace vaal {

// rows × cols logits, contiguous. A pointer that an op does not use is null.
template <class T>
struct KlArguments {
  const T* p;  // [rows, cols] logits a
  const T* q;  // [rows, cols] logits b
  int64_t rows;
  int cols;

  bool symmetric;
  bool smoothed;
  bool direction;         // grad_q is scaled to unit row maximum, and there is no grad_value
  Scalar<T> keep, floor;  // 1 − smoothing and smoothing / cols

  Scalar<T>* value;             // [rows]
  const Scalar<T>* grad_value;  // [rows], grad_value_stride elements apart (0: expanded)
  int64_t grad_value_stride;
  T* grad_p;  // [rows, cols]: backward
  T* grad_q;  // [rows, cols]: backward and direction

  bool whole_packs;  // every row of every tensor starts at a multiple of 16 bytes
};

}  // namespace vaal
