// fisher_product on CUDA: logits, tangents [B, C] → F·v [B, C] with row maximum 1.
#include "cuda/launch.h"

namespace vaal {
namespace {

Tensor fisher_product(const Tensor& given, const Tensor& tangents) {
  const DeviceGuard guard(given.get_device_index());
  const Logits pair = check_logits(given, tangents);
  const Tensor out = new_tensor(given, {pair.rows, pair.cols}, given.scalar_type());
  if (pair.rows == 0) return out;
  const LaunchPlan plan = launch_plan(Op::kFisherProduct, pair.rows, pair.cols, dtype_size(pair.p),
                                      false, device_limits(pair.p));
  dispatch(pair.p, [&](auto type) {
    using T = decltype(type);
    FisherArguments<T> args{};
    args.p = static_cast<const T*>(pair.p.const_data_ptr());
    args.q = static_cast<const T*>(pair.q.const_data_ptr());
    args.out = static_cast<T*>(out.mutable_data_ptr());
    args.rows = pair.rows;
    args.cols = static_cast<int>(pair.cols);
    args.whole_packs = whole_packs(pair.cols, sizeof(T), {args.p, args.q, args.out});
    launch_fisher(args, plan, current_stream(pair.p));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CUDA, m) {
  m.impl("fisher_product", TORCH_BOX(&vaal::fisher_product));
}
