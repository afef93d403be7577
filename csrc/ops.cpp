// The schema of every op. What each means, with shapes, dtypes and errors, stands in the docstrings
// of vaal_ext/ops; the kernels are registered in cpu/*_ops.cpp and cuda/*.cu.
//
// A is the type of the arithmetic: float64 for float64 input, float32 for all others.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(vaal, m) {
  // logits [B, C] -> value A[B]
  m.def(
      "symmetric_kl(Tensor p_logits, Tensor q_logits, float smoothing, bool symmetric) -> Tensor");
  // grad_value A[B] -> gradients [B, C]; one that is not needed comes back with no element
  m.def(
      "symmetric_kl_backward(Tensor grad_value, Tensor p_logits, Tensor q_logits, float smoothing, "
      "bool symmetric, bool need_p, bool need_q) -> (Tensor, Tensor)");
  // logits [B, C] -> value A[B], dlogits [B, C] with row maximum 1
  m.def(
      "symmetric_kl_direction(Tensor p_logits, Tensor q_logits, float smoothing, bool symmetric) "
      "-> (Tensor, Tensor)");
  // x, direction [B, ...] -> out like x, norm A[B]
  m.def("perturb(Tensor x, Tensor direction, float radius) -> (Tensor, Tensor)");
  // x [B, ...], sample_index int64[B] -> out like x
  m.def("random_perturb(Tensor x, float radius, int seed, Tensor sample_index) -> Tensor");
  // logits [B, C] -> pseudo_label int64[B], entropy A[B], margin A[B]
  m.def("posterior_summary(Tensor logits) -> (Tensor, Tensor, Tensor)");
  // logits [B, C], gradients [B, K, ...], reference int64[B], candidates int64[B, K]
  // -> nearest int64[B], distance A[B], step [B, ...]
  m.def(
      "deepfool_step(Tensor logits, Tensor gradients, Tensor reference, Tensor candidates) "
      "-> (Tensor, Tensor, Tensor)");
  // logits, tangents [B, C] -> product [B, C] with row maximum 1
  m.def("fisher_product(Tensor logits, Tensor tangents) -> Tensor");
  // logits [B, C] -> direction [B, C] with row maximum 1, curvature A[B]
  m.def("fisher_direction(Tensor logits) -> (Tensor, Tensor)");
}
