// posterior_summary: pseudo label, entropy and margin of softmax(a), in one read of every row.
//
//   logits [rows, cols] a          label int64 [rows]          entropy, margin [rows]
//   k = argmax a    α_j = a_j − a_k    R = Σ_{j≠k} e^α_j    W = Σ_{j≠k} e^α_j·α_j    Z = 1 + R
//   entropy = log1p(R) − W/Z  (nats; every term ≥ 0)
//   margin  = p_k − p_runner-up = −expm1(α_runner-up)/Z
//
// Each thread summarises its packs against their own maximum; two summaries merge by moving the
// one with the smaller maximum (all its terms are of one sign: nothing cancels). Ties go to the
// smallest index; a row whose maximum is not finite gives NaN.
// Bytes moved, E the size of an element: E·cols + 8 + 2·sizeof(Scalar) a row, in every path.
#pragma once

#include <cmath>

#include "cuda/arguments.h"
#include "cuda/group.cuh"
#include "cuda/split_part.cuh"
#include "cuda/storage.cuh"
#include "math/pivot_kl.h"

namespace vaal {

constexpr int kNoLabel = 0x7FFFFFFF;

// The classes seen so far. NaN counts as the largest logit, as in torch.argmax.
template <class S>
struct Summary {
  S first = S(-INFINITY), second = S(-INFINITY);  // the two largest logits
  S rest = 0, weighted = 0;                       // R and W, measured from `first`
  int label = kNoLabel;
  int padding = 0;  // whole words in both types

  // Classes come in ascending order; rest and weighted are filled in later.
  VAAL_DEVICE void rank(int j, S a) {
    const bool wins = !(a <= first) && first == first;
    second = wins ? first : CudaMath<S>::max(second, a);
    first = wins ? a : first;
    label = wins ? j : label;
  }
};

template <class S>
VAAL_DEVICE Summary<S> merge(const Summary<S>& x, const Summary<S>& y) {
  const bool x_nan = x.first != x.first, y_nan = y.first != y.first;
  const bool same = x.first == y.first || (x_nan && y_nan);
  const bool x_wins = same ? x.label < y.label : x_nan || x.first > y.first;
  // Selected member by member: a reference to one of the two would put both into local memory.
  const S high = x_wins ? x.first : y.first, low = x_wins ? y.first : x.first;
  const S low_rest = x_wins ? y.rest : x.rest, low_weighted = x_wins ? y.weighted : x.weighted;
  const bool low_is_empty = (x_wins ? y.label : x.label) == kNoLabel;  // nothing above −inf there
  const S shift = low_is_empty ? S(-INFINITY) : low - high;
  const S weight = CudaMath<S>::exp(shift);
  const S mass = 1 + low_rest;  // of the lower one, measured from its own maximum
  Summary<S> both;
  both.first = high;
  both.second = CudaMath<S>::max(x_wins ? x.second : y.second, low);
  both.rest = (x_wins ? x.rest : y.rest) + weight * mass;
  both.weighted = (x_wins ? x.weighted : y.weighted) + weigh(weight, low_weighted + shift * mass);
  both.label = x_wins ? x.label : y.label;
  return both;
}

template <class T, int kPacks>
VAAL_DEVICE Summary<Scalar<T>> summarise(const Pack (&a)[kPacks], const Columns<T>& columns,
                                         int first_column, int first_pack) {
  using S = Scalar<T>;
  Summary<S> local;
#pragma unroll
  for (int c = 0; c < kPacks; ++c)
#pragma unroll
    for (int i = 0; i < kPackItems<T>; ++i)
      local.rank(first_column + columns.column(first_pack + c, i), to_scalar(unpack<T>(a[c], i)));
  const S base = local.label == kNoLabel ? S(0) : local.first;  // nothing but −inf here: weights 0
#pragma unroll
  for (int c = 0; c < kPacks; ++c)
#pragma unroll
    for (int i = 0; i < kPackItems<T>; ++i) {
      const S alpha = to_scalar(unpack<T>(a[c], i)) - base;
      const bool pivot = first_column + columns.column(first_pack + c, i) == local.label;
      const S weight = pivot ? S(0) : CudaMath<S>::exp(alpha);
      local.rest += weight;
      local.weighted += weigh(weight, alpha);
    }
  return local;
}

template <class T>
VAAL_DEVICE void write_summary(const SummaryArguments<T>& args, int64_t row,
                               const Summary<Scalar<T>>& all) {
  using S = Scalar<T>;
  using M = CudaMath<S>;
  const S rest = all.rest + (all.first - all.first);  // NaN where the maximum is not finite
  const S z = 1 + rest;
  args.label[row] = all.label == kNoLabel ? 0 : all.label;
  args.entropy[row] = M::log1p(rest) - all.weighted / z;
  args.margin[row] = -M::expm1(all.second - all.first) / z;
}

// A group of threads a row, or (partials not null) a block for each of `splits` parts of a row:
// then the part's summary goes to partials [rows, splits]. part = cols where splits = 1.
template <class T, int kPacks, bool kBlock>
VAAL_KERNEL(kBlock ? register_shape(Op::kPosteriorSummary, sizeof(T)).max_threads
                   : kWarpPathThreads)
summary_rows(SummaryArguments<T> args, int threads_per_row, int splits, int part,
             Summary<Scalar<T>>* partials) {
  using S = Scalar<T>;
  Group<kBlock ? GroupKind::kBlock : GroupKind::kLanes> group(threads_per_row);
  group.each_row(args.rows * splits, [&](int64_t at, bool exists) {
    const SplitPart here(at, splits, part, args.cols);
    const Columns<T> columns(group.rank, group.size, exists ? here.length : 0, args.whole_packs);
    Summary<S> all;
    for (int first = 0; first < columns.packs(); first += kPacks) {
      Pack a[kPacks];
      columns.load(args.logits + here.offset, first, filled<T>(S(-INFINITY)), a);
      all = merge(all, summarise(a, columns, here.split * part, first));
    }
    all = group.reduce(all);
    if (group.rank != 0 || !exists) return;
    if (partials != nullptr) partials[at] = all;
    else write_summary(args, here.row, all);
  });
}

// Second kernel of the split path: a warp a row.
template <class T>
VAAL_KERNEL(kWarpPathThreads)
summary_merge(SummaryArguments<T> args, int splits, const Summary<Scalar<T>>* partials) {
  Group<GroupKind::kLanes> group(kWarp);
  group.each_row(args.rows, [&](int64_t row, bool exists) {
    Summary<Scalar<T>> all;
    for (int s = group.rank; s < splits; s += kWarp) all = merge(all, partials[row * splits + s]);
    all = group.reduce(all);
    if (group.rank == 0 && exists) write_summary(args, row, all);
  });
}

// From a plan to the launches. workspace: summary_workspace_bytes().
template <class T>
int64_t summary_workspace_bytes(const LaunchPlan& plan, int64_t rows) {
  return plan.path == Path::kSplit ? rows * plan.splits * int64_t{sizeof(Summary<Scalar<T>>)} : 0;
}

template <class T>
void launch_summary(const SummaryArguments<T>& args, const LaunchPlan& plan, void* workspace,
                    Stream stream) {
  constexpr RegisterShape kShape = register_shape(Op::kPosteriorSummary, sizeof(T));
  const LaunchShape shape{plan.blocks, plan.block_threads, plan.shared_bytes, stream};
  auto kernel = summary_rows<T, kShape.many_packs, true>;
  if (plan.path == Path::kWarp) {
    kernel = summary_rows<T, kShape.many_packs, false>;
    if (plan.items_per_thread == kShape.few_packs * kPackItems<T>)
      kernel = summary_rows<T, kShape.few_packs, false>;
  }
  using Partials = Summary<Scalar<T>>*;
  if (plan.path != Path::kSplit) {
    launch(kernel, shape, args, plan.threads_per_row, 1, args.cols, Partials{nullptr});
    return;
  }
  const auto partials = static_cast<Partials>(workspace);
  const int part = split_part(plan, args.cols, kPackItems<T>);
  launch(kernel, shape, args, plan.threads_per_row, plan.splits, part, partials);
  const int64_t blocks = ceil_div(args.rows, kWarpPathThreads / kWarp);
  launch<SummaryArguments<T>, int, const Summary<Scalar<T>>*>(
      summary_merge<T>, {std::min(blocks, plan.blocks), kWarpPathThreads, 0, stream}, args,
      plan.splits, partials);
}

}  // namespace vaal
