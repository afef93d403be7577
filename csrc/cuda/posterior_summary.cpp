// posterior_summary on CUDA: logits [B, C] → pseudo label int64 [B], entropy [B], margin [B].
#include <tuple>

#include "cuda/launch.h"

namespace vaal {
namespace {

std::tuple<Tensor, Tensor, Tensor> posterior_summary(const Tensor& given) {
  const DeviceGuard guard(given.get_device_index());
  const Tensor logits = check_logits(given);
  const int64_t rows = logits.size(0), cols = logits.size(1);
  const Tensor label = new_tensor(logits, {rows}, ScalarType::Long);
  const Tensor entropy = new_tensor(logits, {rows}, arithmetic_type(logits));
  const Tensor margin = new_tensor(logits, {rows}, arithmetic_type(logits));
  if (rows == 0) return {label, entropy, margin};

  const LaunchPlan plan = launch_plan(Op::kPosteriorSummary, rows, cols, dtype_size(logits), false,
                                      device_limits(logits));
  dispatch(logits, [&](auto type) {
    using T = decltype(type);
    using S = Scalar<T>;
    SummaryArguments<T> args{};
    args.logits = static_cast<const T*>(logits.const_data_ptr());
    args.label = static_cast<int64_t*>(label.mutable_data_ptr());
    args.entropy = static_cast<S*>(entropy.mutable_data_ptr());
    args.margin = static_cast<S*>(margin.mutable_data_ptr());
    args.rows = rows;
    args.cols = static_cast<int>(cols);
    args.whole_packs = whole_packs(cols, sizeof(T), {args.logits});
    const Workspace workspace(logits, summary_workspace_bytes<T>(plan, rows));
    launch_summary(args, plan, workspace.data(), current_stream(logits));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {label, entropy, margin};
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) {
  m.impl("posterior_summary", TORCH_BOX(&vaal::posterior_summary));
}
