// fisher_direction for the runner.        buffers: logits → out, curvature
#include "cuda/fisher_direction.cuh"

#include "kernels.h"

namespace vaal::testing {
namespace {

void fisher_direction(const Call& call, void* const* buffer) {
  const Launch launch(call);
  DirectionArguments<T> args{};
  args.logits = static_cast<const T*>(buffer[0]);
  args.out = static_cast<T*>(buffer[1]);
  args.curvature = static_cast<Scalar<T>*>(buffer[2]);
  args.rows = launch.rows;
  args.cols = static_cast<int>(launch.cols);
  args.whole_packs = whole_packs(launch.cols, sizeof(T), {args.logits, args.out});
  launch_direction(args, launch.plan, Stream{});
}

const Registration registration(named("fisher_direction"), fisher_direction);

}  // namespace
}  // namespace vaal::testing
