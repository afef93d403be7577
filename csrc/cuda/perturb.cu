// perturb on CUDA: x, direction [B, ...] → out like x, norm [B].
#include "cuda/perturb.cuh"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda/tensors.h"

namespace vaal {
namespace {

bool same_strides(const Tensor& x, const Tensor& y) {
  const auto a = x.strides(), b = y.strides();
  return std::equal(a.begin(), a.end(), b.begin());
}

// Whether every sample is one dense block of memory, in whatever order of its dimensions
// (channels_last, say): a norm and a sum do not mind the order.
bool samples_are_dense(const Tensor& x) {
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

std::tuple<Tensor, Tensor> perturb(const Tensor& x, const Tensor& direction, double radius) {
  const DeviceGuard guard(x.get_device_index());
  const auto x_sizes = x.sizes(), direction_sizes = direction.sizes();
  STD_TORCH_CHECK(x.dim() >= 1 && x.dim() == direction.dim() &&
                      std::equal(x_sizes.begin(), x_sizes.end(), direction_sizes.begin()) &&
                      x.scalar_type() == direction.scalar_type() &&
                      x.get_device_index() == direction.get_device_index(),
                  "vaal: x and direction must have one shape [B, ...], dtype and device");
  Tensor out = torch::stable::empty_like(x);
  Tensor norm = new_tensor(x, {x.size(0)}, arithmetic_type(x));
  if (x.numel() == 0) return {out, torch::stable::zero_(norm)};

  const bool as_it_lies =
      same_strides(x, direction) && same_strides(x, out) && samples_are_dense(x);
  const Tensor from = as_it_lies ? x : torch::stable::contiguous(x);
  const Tensor along = as_it_lies ? direction : torch::stable::contiguous(direction);
  const Tensor to = as_it_lies || out.is_contiguous() ? out : torch::stable::empty_like(from);

  const int64_t rows = x.size(0), cols = x.numel() / rows;
  const LaunchPlan plan =
      launch_plan(Op::kPerturb, rows, cols, dtype_size(x), false, device_limits(x));
  const Workspace workspace(x, perturb_workspace_bytes(plan, rows));
  dispatch(x, [&](auto type) {
    using T = decltype(type);
    using S = Scalar<T>;
    PerturbArguments<T> args{};
    args.x = static_cast<const T*>(from.const_data_ptr());
    args.direction = static_cast<const T*>(along.const_data_ptr());
    args.out = static_cast<T*>(to.mutable_data_ptr());
    args.norm = static_cast<S*>(norm.mutable_data_ptr());
    args.rows = rows;
    args.cols = cols;
    args.radius = static_cast<S>(radius);
    args.whole_packs = whole_packs(cols, sizeof(T), {args.x, args.direction, args.out});
    launch_perturb(args, plan, workspace.data(), current_stream(x));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  if (to.get() != out.get()) torch::stable::copy_(out, to);
  return {out, norm};
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) {
  m.impl("perturb", TORCH_BOX(&vaal::perturb));
}
