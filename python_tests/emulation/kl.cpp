// symmetric_kl, its backward and its direction for the runner.
//
// integers: … op, symmetric, stride of grad_value        numbers: smoothing
// buffers:  p, q, grad_value → value, grad_p, grad_q
#include "cuda/kl_long_launch.cuh"
#include "cuda/kl_registers.cuh"
#include "kernels.h"

namespace vaal::testing {
namespace {

void kl(const Call& call, void* const* buffer) {
  const Launch launch(call);
  const int64_t* const own = call.integer + kFirstOwnInteger;
  const Op op = static_cast<Op>(own[0]);
  const double smoothing = call.number[0];
  KlArguments<T> args{};
  args.p = static_cast<const T*>(buffer[0]);
  args.q = static_cast<const T*>(buffer[1]);
  args.rows = launch.rows;
  args.cols = static_cast<int>(launch.cols);
  args.symmetric = own[1] != 0;
  args.smoothed = smoothing > 0;
  args.direction = op == Op::kSymmetricKlDirection;
  args.keep = static_cast<S>(1 - smoothing);
  args.floor = static_cast<S>(smoothing / static_cast<double>(launch.cols));
  args.grad_value = static_cast<const S*>(buffer[2]);
  args.grad_value_stride = own[2];
  args.value = static_cast<S*>(buffer[3]);
  args.grad_p = static_cast<T*>(buffer[4]);
  args.grad_q = static_cast<T*>(buffer[5]);
  args.whole_packs = whole_packs(launch.cols, sizeof(T),
                                 {args.p, args.q, args.grad_p, args.grad_q});
  const Workspace workspace(kl_workspace_bytes<T>(launch.plan, args.rows));
  const auto run = [&](auto launch_op) {
    launch_op(args, launch.plan, workspace.data(), Stream{});
  };
  switch (op) {
    case Op::kSymmetricKl: return run(launch_kl<Op::kSymmetricKl, T>);
    case Op::kSymmetricKlBackward: return run(launch_kl<Op::kSymmetricKlBackward, T>);
    default: return run(launch_kl<Op::kSymmetricKlDirection, T>);
  }
}

const Registration registration(named("kl"), kl);

}  // namespace
}  // namespace vaal::testing
