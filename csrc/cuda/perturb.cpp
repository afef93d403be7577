// perturb on CUDA: x, direction [B, ...] → out like x, norm [B].
#include <tuple>

#include "cuda/launch.h"

namespace vaal {
namespace {

std::tuple<Tensor, Tensor> perturb(const Tensor& x, const Tensor& direction, double radius) {
  const DeviceGuard guard(x.get_device_index());
  check_perturb(x, direction);
  Tensor out = torch::stable::empty_like(x);
  Tensor norm = new_tensor(x, {x.size(0)}, arithmetic_type(x));
  if (x.numel() == 0) return {out, torch::stable::zero_(norm)};

  const PerturbTensors lying = in_one_order(x, direction, out);
  const int64_t rows = x.size(0), cols = x.numel() / rows;
  const LaunchPlan plan = launch_plan(Op::kPerturb, rows, cols, dtype_size(x), false,
                                      device_limits(x));
  dispatch(x, [&](auto type) {
    using T = decltype(type);
    using S = Scalar<T>;
    PerturbArguments<T> args{};
    args.x = static_cast<const T*>(lying.x.const_data_ptr());
    args.direction = static_cast<const T*>(lying.direction.const_data_ptr());
    args.out = static_cast<T*>(lying.out.mutable_data_ptr());
    args.norm = static_cast<S*>(norm.mutable_data_ptr());
    args.rows = rows;
    args.cols = cols;
    args.radius = static_cast<S>(radius);
    args.whole_packs = whole_packs(cols, sizeof(T), {args.x, args.direction, args.out});
    const Workspace workspace(x, perturb_workspace_bytes<T>(plan, rows));
    launch_perturb(args, plan, workspace.data(), current_stream(x));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  if (lying.out.get() != out.get()) torch::stable::copy_(out, lying.out);
  return {out, norm};
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) { m.impl("perturb", TORCH_BOX(&vaal::perturb)); }
