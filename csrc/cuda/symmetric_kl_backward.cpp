// symmetric_kl_backward on CUDA: grad_value [B], logits [B, C] → gradients [B, C].
#include <tuple>

#include "cuda/kl_tensors.h"

namespace vaal {
namespace {

std::tuple<Tensor, Tensor> symmetric_kl_backward(const Tensor& grad_value, const Tensor& p,
                                                 const Tensor& q, double smoothing, bool symmetric,
                                                 bool need_p, bool need_q) {
  const DeviceGuard guard(p.get_device_index());
  const Logits logits = check_logits(p, q);
  check_grad_value(grad_value, logits);
  const auto result = [&](bool needed) {
    return needed ? new_tensor(p, {logits.rows, logits.cols}, p.scalar_type())
                  : new_tensor(p, {0}, p.scalar_type());
  };
  const Tensor grad_p = result(need_p), grad_q = result(need_q);
  KlResults results;
  if (need_p) results.grad_p = grad_p.mutable_data_ptr();
  if (need_q) results.grad_q = grad_q.mutable_data_ptr();
  if (need_p || need_q)
    run_kl<Op::kSymmetricKlBackward>(logits, smoothing, symmetric, results, &grad_value);
  return {grad_p, grad_q};
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) {
  m.impl("symmetric_kl_backward", TORCH_BOX(&vaal::symmetric_kl_backward));
}
