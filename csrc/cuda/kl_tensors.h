// From tensors to KlArguments: what symmetric_kl, its backward and its direction have in common.
#pragma once

#include "cuda/launch.h"

namespace vaal {

// Results that the op does not have are null.
struct KlResults {
  void* value = nullptr;
  void* grad_p = nullptr;
  void* grad_q = nullptr;
};

template <Op kOp>
void run_kl(const Logits& logits, double smoothing, bool symmetric, const KlResults& results,
            const Tensor* grad_value) {
  if (logits.rows == 0) return;
  const int64_t rows = logits.rows, cols = logits.cols;
  const LaunchPlan plan = launch_plan(kOp, rows, cols, dtype_size(logits.p), smoothing > 0,
                                      device_limits(logits.p));
  dispatch(logits.p, [&](auto type) {
    using T = decltype(type);
    using S = Scalar<T>;
    KlArguments<T> args{};
    args.p = static_cast<const T*>(logits.p.const_data_ptr());
    args.q = static_cast<const T*>(logits.q.const_data_ptr());
    args.rows = rows;
    args.cols = static_cast<int>(cols);
    args.symmetric = symmetric;
    args.smoothed = smoothing > 0;
    args.direction = kOp == Op::kSymmetricKlDirection;
    args.keep = static_cast<S>(1 - smoothing);
    args.floor = static_cast<S>(smoothing / static_cast<double>(cols));
    args.value = static_cast<S*>(results.value);
    if (grad_value != nullptr) {
      args.grad_value = static_cast<const S*>(grad_value->const_data_ptr());
      args.grad_value_stride = grad_value->stride(0);
    }
    args.grad_p = static_cast<T*>(results.grad_p);
    args.grad_q = static_cast<T*>(results.grad_q);
    args.whole_packs = whole_packs(cols, sizeof(T), {args.p, args.q, args.grad_p, args.grad_q});
    const Workspace workspace(logits.p, kl_workspace_bytes<T>(plan, rows));
    launch_kl<kOp>(args, plan, workspace.data(), current_stream(logits.p));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace vaal
