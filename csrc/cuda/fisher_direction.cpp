// fisher_direction on CUDA: logits [B, C] → direction [B, C] with row maximum 1, curvature [B].
#include <tuple>

#include "cuda/launch.h"

namespace vaal {
namespace {

std::tuple<Tensor, Tensor> fisher_direction(const Tensor& given) {
  const DeviceGuard guard(given.get_device_index());
  const Tensor logits = check_logits(given);
  const int64_t rows = logits.size(0), cols = logits.size(1);
  const Tensor out = new_tensor(logits, {rows, cols}, logits.scalar_type());
  const Tensor curvature = new_tensor(logits, {rows}, arithmetic_type(logits));
  if (rows == 0) return {out, curvature};

  const LaunchPlan plan = launch_plan(Op::kFisherDirection, rows, cols, dtype_size(logits), false,
                                      device_limits(logits));
  dispatch(logits, [&](auto type) {
    using T = decltype(type);
    DirectionArguments<T> args{};
    args.logits = static_cast<const T*>(logits.const_data_ptr());
    args.out = static_cast<T*>(out.mutable_data_ptr());
    args.curvature = static_cast<Scalar<T>*>(curvature.mutable_data_ptr());
    args.rows = rows;
    args.cols = static_cast<int>(cols);
    args.whole_packs = whole_packs(cols, sizeof(T), {args.logits, args.out});
    launch_direction(args, plan, current_stream(logits));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {out, curvature};
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) {
  m.impl("fisher_direction", TORCH_BOX(&vaal::fisher_direction));
}
