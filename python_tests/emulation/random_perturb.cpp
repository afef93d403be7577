// random_perturb for the runner.
//
// integers: … seed        numbers: radius        buffers: x, sample_index → out
#include "cuda/random_perturb.cuh"

#include "kernels.h"

namespace vaal::testing {
namespace {

void random_perturb(const Call& call, void* const* buffer) {
  const Launch launch(call);
  RandomPerturbArguments<T> args{};
  args.x = static_cast<const T*>(buffer[0]);
  args.sample_index = static_cast<const int64_t*>(buffer[1]);
  args.out = static_cast<T*>(buffer[2]);
  args.rows = launch.rows;
  args.cols = launch.cols;
  args.seed = static_cast<uint64_t>(call.integer[kFirstOwnInteger]);
  args.radius = static_cast<S>(call.number[0]);
  args.whole_packs = whole_packs(launch.cols, sizeof(T), {args.x, args.out});
  const Workspace workspace(random_perturb_workspace_bytes<T>(launch.plan, launch.rows));
  launch_random_perturb(args, launch.plan, workspace.data(), Stream{});
}

const Registration registration(named("random_perturb"), random_perturb);

}  // namespace
}  // namespace vaal::testing
