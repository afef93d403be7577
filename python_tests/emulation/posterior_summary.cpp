// posterior_summary for the runner.        buffers: logits → label, entropy, margin
#include "cuda/posterior_summary.cuh"

#include "kernels.h"

namespace vaal::testing {
namespace {

void posterior_summary(const Call& call, void* const* buffer) {
  const Launch launch(call);
  SummaryArguments<T> args{};
  args.logits = static_cast<const T*>(buffer[0]);
  args.label = static_cast<int64_t*>(buffer[1]);
  args.entropy = static_cast<S*>(buffer[2]);
  args.margin = static_cast<S*>(buffer[3]);
  args.rows = launch.rows;
  args.cols = static_cast<int>(launch.cols);
  args.whole_packs = whole_packs(launch.cols, sizeof(T), {args.logits});
  const Workspace workspace(summary_workspace_bytes<T>(launch.plan, launch.rows));
  launch_summary(args, launch.plan, workspace.data(), Stream{});
}

const Registration registration(named("posterior_summary"), posterior_summary);

}  // namespace
}  // namespace vaal::testing
