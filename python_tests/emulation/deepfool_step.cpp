// deepfool_step for the runner.        integers: candidates, classes, sample and candidate stride
// buffers: logits, gradients, reference, candidates → nearest, distance, step
#include "cuda/deepfool_step.cuh"

#include "kernels.h"

namespace vaal::testing {
namespace {

void deepfool_step(const Call& call, void* const* buffer) {
  const Launch launch(call);
  const int64_t* const own = call.integer + kFirstOwnInteger;
  DeepfoolArguments<T> args{};
  args.logits = static_cast<const T*>(buffer[0]);
  args.gradients = static_cast<const T*>(buffer[1]);
  args.reference = static_cast<const int64_t*>(buffer[2]);
  args.candidates = static_cast<const int64_t*>(buffer[3]);
  args.nearest = static_cast<int64_t*>(buffer[4]);
  args.distance = static_cast<S*>(buffer[5]);
  args.step = static_cast<T*>(buffer[6]);
  args.count = static_cast<int>(own[0]);
  args.samples = launch.rows / own[0];
  args.classes = own[1];
  args.cols = launch.cols;
  args.sample_stride = own[2];
  args.candidate_stride = own[3];
  args.whole_packs = whole_packs(launch.cols, sizeof(T), {args.gradients, args.step}) &&
                     whole_packs(args.sample_stride, sizeof(T), {}) &&
                     whole_packs(args.candidate_stride, sizeof(T), {});
  const Workspace workspace(deepfool_workspace_bytes<T>(launch.plan, launch.rows));
  launch_deepfool(args, launch.plan, workspace.data(), Stream{});
}

const Registration registration(named("deepfool_step"), deepfool_step);

}  // namespace
}  // namespace vaal::testing
