// symmetric_kl_direction on CUDA: logits [B, C] → value [B], dvalue/dq [B, C] with row maximum 1.
#include <tuple>

#include "cuda/kl_tensors.h"

namespace vaal {
namespace {

std::tuple<Tensor, Tensor> symmetric_kl_direction(const Tensor& p, const Tensor& q,
                                                  double smoothing, bool symmetric) {
  const DeviceGuard guard(p.get_device_index());
  const Logits logits = check_logits(p, q);
  const Tensor value = new_tensor(p, {logits.rows}, arithmetic_type(p));
  const Tensor dlogits = new_tensor(p, {logits.rows, logits.cols}, p.scalar_type());
  KlResults results;
  results.value = value.mutable_data_ptr();
  results.grad_q = dlogits.mutable_data_ptr();
  run_kl<Op::kSymmetricKlDirection>(logits, smoothing, symmetric, results, nullptr);
  return {value, dlogits};
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) {
  m.impl("symmetric_kl_direction", TORCH_BOX(&vaal::symmetric_kl_direction));
}
