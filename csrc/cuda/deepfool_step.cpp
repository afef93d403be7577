// deepfool_step on CUDA: logits, gradients [B, K, ...] → nearest [B], distance [B], step [B, ...].
#include <tuple>

#include "cuda/launch.h"

namespace vaal {
namespace {

std::tuple<Tensor, Tensor, Tensor> deepfool_step(const Tensor& given_logits,
                                                 const Tensor& given_gradients,
                                                 const Tensor& given_reference,
                                                 const Tensor& given_candidates) {
  const DeviceGuard guard(given_logits.get_device_index());
  const DeepfoolTensors given = check_deepfool(given_logits, given_gradients, given_reference,
                                               given_candidates);
  const Tensor &logits = given.logits, &gradients = given.gradients;
  const Tensor &reference = given.reference, &candidates = given.candidates;
  const int64_t samples = logits.size(0), count = gradients.size(1);
  const Tensor nearest = new_tensor(logits, {samples}, ScalarType::Long);
  const Tensor distance = new_tensor(logits, {samples}, arithmetic_type(logits));
  const Tensor step = new_step(gradients);
  if (samples == 0) return {nearest, distance, step};
  STD_TORCH_CHECK(gradients.numel() > 0 && count < int64_t{1} << 31,
                  "vaal: gradients must be [B, K, ...] with 1 <= K < 2^31 and elements in each");

  const int64_t rows = samples * count, cols = gradients.numel() / rows;
  const LaunchPlan plan = launch_plan(Op::kDeepfoolStep, rows, cols, dtype_size(logits), false,
                                      device_limits(logits));
  dispatch(logits, [&](auto type) {
    using T = decltype(type);
    DeepfoolArguments<T> args{};
    args.logits = static_cast<const T*>(logits.const_data_ptr());
    args.gradients = static_cast<const T*>(gradients.const_data_ptr());
    args.reference = static_cast<const int64_t*>(reference.const_data_ptr());
    args.candidates = static_cast<const int64_t*>(candidates.const_data_ptr());
    args.nearest = static_cast<int64_t*>(nearest.mutable_data_ptr());
    args.distance = static_cast<Scalar<T>*>(distance.mutable_data_ptr());
    args.step = static_cast<T*>(step.mutable_data_ptr());
    args.samples = samples;
    args.classes = logits.size(1);
    args.cols = cols;
    args.sample_stride = gradients.stride(0);
    args.candidate_stride = gradients.stride(1);
    args.count = static_cast<int>(count);
    args.whole_packs = whole_packs(cols, sizeof(T), {args.gradients, args.step}) &&
                       whole_packs(args.sample_stride, sizeof(T), {}) &&
                       whole_packs(args.candidate_stride, sizeof(T), {});
    const Workspace workspace(logits, deepfool_workspace_bytes<T>(plan, rows));
    launch_deepfool(args, plan, workspace.data(), current_stream(logits));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {nearest, distance, step};
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) {
  m.impl("deepfool_step", TORCH_BOX(&vaal::deepfool_step));
}
