// From a plan to the launches of symmetric_kl, its backward and its direction.
#pragma once

#include "cuda/kl_registers.cuh"
#include "cuda/kl_split.cuh"

namespace vaal {

// The stream and split paths: compiled once for the three ops, in kl_long_rows.cu.
template <class T>
void launch_kl_long_rows(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace,
                         Stream stream);

inline int64_t kl_workspace_bytes(const LaunchPlan& plan, int64_t rows, int dtype_size) {
  if (plan.path != Path::kSplit) return 0;
  return rows * plan.splits *
         static_cast<int64_t>(dtype_size == 8 ? sizeof(KlPartial<double>)
                                              : sizeof(KlPartial<float>));
}

template <Op kOp, bool kSymmetric, class T>
void launch_kl_registers(const KlArguments<T>& args, const LaunchPlan& plan, Stream stream) {
  constexpr RegisterShape kShape = register_shape(kOp, sizeof(T));
  auto kernel = kl_registers<kOp, kSymmetric, T, kShape.many_packs, true>;
  if (plan.path == Path::kWarp) {
    kernel = kl_registers<kOp, kSymmetric, T, kShape.many_packs, false>;
    if (plan.items_per_thread == kShape.few_packs * kPackItems<T>)
      kernel = kl_registers<kOp, kSymmetric, T, kShape.few_packs, false>;
  }
  launch(kernel, {plan.blocks, plan.block_threads, plan.shared_bytes, stream}, args,
         plan.threads_per_row);
}

// args.rows and args.cols are those of the plan and not 0; workspace has kl_workspace_bytes().
template <Op kOp, class T>
void launch_kl(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace, Stream stream) {
  if (plan.path == Path::kStream || plan.path == Path::kSplit)
    launch_kl_long_rows(args, plan, workspace, stream);
  else if (args.symmetric) launch_kl_registers<kOp, true>(args, plan, stream);
  else launch_kl_registers<kOp, false>(args, plan, stream);
}

}  // namespace vaal
