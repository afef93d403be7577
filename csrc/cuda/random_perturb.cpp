// random_perturb on CUDA: x [B, ...], sample_index int64 [B] → out like x.
#include "cuda/launch.h"

namespace vaal {
namespace {

Tensor random_perturb(const Tensor& x, double radius, int64_t seed, const Tensor& sample_index) {
  const DeviceGuard guard(x.get_device_index());
  check_random_perturb(x, sample_index);
  Tensor out = torch::stable::empty_like(x);
  if (x.numel() == 0) return out;

  // The normals are numbered in logical order, so a channels_last x is copied first.
  const Tensor from = dense(x);
  const Tensor index = dense(sample_index);
  const Tensor to = out.is_contiguous() ? out : torch::stable::empty_like(from);

  const int64_t rows = x.size(0), cols = x.numel() / rows;
  const LaunchPlan plan = launch_plan(Op::kRandomPerturb, rows, cols, dtype_size(x), false,
                                      device_limits(x));
  dispatch(x, [&](auto type) {
    using T = decltype(type);
    RandomPerturbArguments<T> args{};
    args.x = static_cast<const T*>(from.const_data_ptr());
    args.sample_index = static_cast<const int64_t*>(index.const_data_ptr());
    args.out = static_cast<T*>(to.mutable_data_ptr());
    args.rows = rows;
    args.cols = cols;
    args.seed = static_cast<uint64_t>(seed);
    args.radius = static_cast<Scalar<T>>(radius);
    args.whole_packs = whole_packs(cols, sizeof(T), {args.x, args.out});
    const Workspace workspace(x, random_perturb_workspace_bytes<T>(plan, rows));
    launch_random_perturb(args, plan, workspace.data(), current_stream(x));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  if (to.get() != out.get()) torch::stable::copy_(out, to);
  return out;
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) {
  m.impl("random_perturb", TORCH_BOX(&vaal::random_perturb));
}
