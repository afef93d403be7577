// What the tensor code of the CPU and of CUDA shares: new tensors, how tensors lie in memory, and the
// checks of what an op is given. People get their messages from vaal_ext/ops; the checks here keep a
// raw call of an op (torch.ops.vaal) from memory that is not its own.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

namespace vaal {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline ScalarType arithmetic_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// A contiguous tensor of one or two dimensions on like's device. Not through the dispatcher: that
// costs a microsecond.
inline Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> sizes,
                         ScalarType dtype) {
  const int64_t strides[2] = {sizes.size() == 2 ? sizes.begin()[1] : 1, 1};
  int32_t device_type = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.begin(), strides,
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)), device_type,
      like.get_device_index(), &handle));
  return Tensor(handle);
}

inline Tensor dense(const Tensor& x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

inline bool same_strides(const Tensor& x, const Tensor& y) {
  const auto a = x.strides(), b = y.strides();
  return std::equal(a.begin(), a.end(), b.begin());
}

inline bool same_device(const Tensor& x, const Tensor& y) {
  return x.get_device_index() == y.get_device_index();
}

// --- Ops over logits -----------------------------------------------------------------------------

inline Tensor check_logits(const Tensor& given) {
  STD_TORCH_CHECK(given.dim() == 2 && given.size(1) > 0, "vaal: logits must be [B, C] with C >= 1");
  return dense(given);
}

struct Logits {
  Tensor p, q;  // dense [rows, cols]
  int64_t rows, cols;
};

inline Logits check_logits(const Tensor& p, const Tensor& q) {
  STD_TORCH_CHECK(p.dim() == 2 && q.dim() == 2 && p.size(0) == q.size(0) &&
                      p.size(1) == q.size(1) && p.size(1) > 0,
                  "vaal: both arguments must be [B, C] with the same B and C, C >= 1");
  STD_TORCH_CHECK(p.scalar_type() == q.scalar_type() && same_device(p, q),
                  "vaal: both arguments must have one dtype", p.is_cpu() ? "" : " and device");
  return {dense(p), dense(q), p.size(0), p.size(1)};
}

inline void check_grad_value(const Tensor& grad_value, const Logits& logits) {
  STD_TORCH_CHECK(grad_value.dim() == 1 && grad_value.size(0) == logits.rows &&
                      grad_value.scalar_type() == arithmetic_type(logits.p) &&
                      same_device(grad_value, logits.p),
                  "vaal: grad_value must be [B] in the type of the value",
                  logits.p.is_cpu() ? "" : ", on the same device");
}

// --- Ops over samples ----------------------------------------------------------------------------

inline void check_perturb(const Tensor& x, const Tensor& direction) {
  const auto sizes = x.sizes(), direction_sizes = direction.sizes();
  STD_TORCH_CHECK(x.dim() >= 1 && x.dim() == direction.dim() &&
                      std::equal(sizes.begin(), sizes.end(), direction_sizes.begin()) &&
                      x.scalar_type() == direction.scalar_type() && same_device(x, direction),
                  "vaal: x and direction must have one shape [B, ...]",
                  x.is_cpu() ? " and one dtype" : ", dtype and device");
}

inline void check_random_perturb(const Tensor& x, const Tensor& sample_index) {
  STD_TORCH_CHECK(x.dim() >= 1 && sample_index.dim() == 1 && sample_index.size(0) == x.size(0) &&
                      sample_index.scalar_type() == ScalarType::Long &&
                      same_device(x, sample_index),
                  "vaal: x must be [B, ...] and sample_index int64[B]",
                  x.is_cpu() ? "" : " on the same device");
}

// Whether every sample is one dense block of memory, in whatever order of its dimensions
// (channels_last, say).
inline bool samples_are_dense(const Tensor& x) {
  const int64_t elements = x.numel() / x.size(0);
  if (x.size(0) > 1 && x.stride(0) != elements) return false;
  std::vector<std::pair<int64_t, int64_t>> dimensions;
  for (int64_t d = 1; d < x.dim(); ++d)
    if (x.size(d) > 1) dimensions.emplace_back(x.stride(d), x.size(d));
  std::sort(dimensions.begin(), dimensions.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dimensions) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

struct PerturbTensors {
  Tensor x, direction, out;
};

// The tensors of perturb in one order of memory: as they lie where all lie alike in dense samples,
// because a norm and a sum do not mind the order; else copies. If `out` is one, the caller copies it
// back.
inline PerturbTensors in_one_order(const Tensor& x, const Tensor& direction, const Tensor& out) {
  if (same_strides(x, direction) && same_strides(x, out) && samples_are_dense(x))
    return {x, direction, out};
  const Tensor from = dense(x);
  return {from, dense(direction), out.is_contiguous() ? out : torch::stable::empty_like(from)};
}

// --- deepfool_step -------------------------------------------------------------------------------

// Whether the elements of each gradient of [B, K, ...] lie together, in the order of their dimensions.
inline bool rows_are_dense(const Tensor& gradients) {
  int64_t expected = 1;
  for (int64_t d = gradients.dim() - 1; d >= 2; --d) {
    if (gradients.size(d) != 1 && gradients.stride(d) != expected) return false;
    expected *= gradients.size(d);
  }
  return true;
}

// All dense, but for the strides of the first two dimensions of the gradients.
struct DeepfoolTensors {
  Tensor logits, gradients, reference, candidates;
};

inline DeepfoolTensors check_deepfool(const Tensor& logits, const Tensor& gradients,
                                      const Tensor& reference, const Tensor& candidates) {
  STD_TORCH_CHECK(
      logits.dim() == 2 && gradients.dim() >= 2 && gradients.size(0) == logits.size(0) &&
          gradients.scalar_type() == logits.scalar_type() && reference.dim() == 1 &&
          reference.size(0) == logits.size(0) && reference.scalar_type() == ScalarType::Long &&
          candidates.dim() == 2 && candidates.size(0) == logits.size(0) &&
          candidates.size(1) == gradients.size(1) && candidates.scalar_type() == ScalarType::Long,
      "vaal: logits must be [B, C], gradients [B, K, ...] of its dtype, reference int64[B] and "
      "candidates int64[B, K]");
  for (const Tensor* other : {&gradients, &reference, &candidates})
    STD_TORCH_CHECK(same_device(*other, logits),
                    "vaal: logits, gradients, reference and candidates must be on one device");
  return {dense(logits), rows_are_dense(gradients) ? gradients : dense(gradients), dense(reference),
          dense(candidates)};
}

// The step [B, ...] of gradients [B, K, ...], not yet written.
inline Tensor new_step(const Tensor& gradients) {
  const auto sizes = gradients.sizes();
  std::vector<int64_t> step_sizes(sizes.begin(), sizes.end());
  step_sizes.erase(step_sizes.begin() + 1);
  return torch::stable::new_empty(gradients, step_sizes);
}

}  // namespace vaal
