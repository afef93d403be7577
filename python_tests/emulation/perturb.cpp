// perturb for the runner.        numbers: radius        buffers: x, direction → out, norm
#include "cuda/perturb.cuh"

#include "kernels.h"

namespace vaal::testing {
namespace {

void perturb(const Call& call, void* const* buffer) {
  const Launch launch(call);
  PerturbArguments<T> args{};
  args.x = static_cast<const T*>(buffer[0]);
  args.direction = static_cast<const T*>(buffer[1]);
  args.out = static_cast<T*>(buffer[2]);
  args.norm = static_cast<S*>(buffer[3]);
  args.rows = launch.rows;
  args.cols = launch.cols;
  args.radius = static_cast<S>(call.number[0]);
  args.whole_packs = whole_packs(launch.cols, sizeof(T), {args.x, args.direction, args.out});
  const Workspace workspace(perturb_workspace_bytes<T>(launch.plan, launch.rows));
  launch_perturb(args, launch.plan, workspace.data(), Stream{});
}

const Registration registration(named("perturb"), perturb);

}  // namespace
}  // namespace vaal::testing
