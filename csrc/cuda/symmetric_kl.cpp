// symmetric_kl on CUDA: logits [B, C] → value [B].
#include "cuda/kl_tensors.h"

namespace vaal {
namespace {

Tensor symmetric_kl(const Tensor& p, const Tensor& q, double smoothing, bool symmetric) {
  const DeviceGuard guard(p.get_device_index());
  const Logits logits = check_logits(p, q);
  const Tensor value = new_tensor(p, {logits.rows}, arithmetic_type(p));
  run_kl<Op::kSymmetricKl>(logits, smoothing, symmetric, {value.mutable_data_ptr()}, nullptr);
  return value;
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) { m.impl("symmetric_kl", TORCH_BOX(&vaal::symmetric_kl)); }
