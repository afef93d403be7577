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
#include "cuda/elementary.cuh"
#include "cuda/group.cuh"
#include "cuda/split_part.cuh"
#include "cuda/storage.cuh"
#include "math/pivot_kl.h"

namespace vaal {

constexpr int kNoLabel = 0x7FFFFFFF;

// The two largest logits. NaN counts as the largest, as in torch.argmax.
template <class S>
struct Ranked {
  S first = S(-INFINITY), second = S(-INFINITY);
  int label = kNoLabel;
  int padding = 0;  // whole words in both types

  // Classes come in ascending order.
  VAAL_DEVICE void rank(int j, S a) {
    const bool wins = !(a <= first) && first == first;
    second = wins ? first : CudaMath<S>::max(second, a);
    first = wins ? a : first;
    label = wins ? j : label;
  }
};

template <class S>
VAAL_DEVICE Ranked<S> merge(const Ranked<S>& x, const Ranked<S>& y) {
  const bool x_nan = x.first != x.first, y_nan = y.first != y.first;
  const bool same = (x.first == y.first) | (x_nan & y_nan);
  const bool x_wins = same ? x.label < y.label : x_nan | (x.first > y.first);
  return {x_wins ? x.first : y.first,
          CudaMath<S>::max(x_wins ? x.second : y.second, x_wins ? y.first : x.first),
          x_wins ? x.label : y.label, 0};
}

// e^kNoWeight is 0: in place of −inf, whose product with its weight is none.
template <class S>
constexpr S kNoWeight = sizeof(S) == 4 ? S(-110) : S(-800);

// Sums over the classes beside a pivot: R and W.
template <class S>
struct Weights {
  S rest = 0, weighted = 0;
};

template <class S>
VAAL_DEVICE Weights<S> merge(const Weights<S>& x, const Weights<S>& y) {
  return {x.rest + y.rest, x.weighted + y.weighted};
}

// The classes seen so far, their weights measured from the largest of them.
template <class S>
struct Summary {
  Ranked<S> top;
  Weights<S> weights;

  // The same weights measured from a logit that is at least as large, `label` its class: the own pivot
  // then counts, if it is another.
  VAAL_DEVICE Weights<S> below(S first, int label) const {
    if (top.label == label) return weights;
    const bool empty = top.label == kNoLabel;  // nothing above −inf
    const S shift = empty ? S(-INFINITY) : top.first - first;
    const S weight = CudaMath<S>::exp(shift), mass = 1 + weights.rest;
    return {weight * mass, weigh(weight, weights.weighted + shift * mass)};
  }
};

template <class S>
VAAL_DEVICE Summary<S> merge(const Summary<S>& x, const Summary<S>& y) {
  const Ranked<S> top = merge(x.top, y.top);
  return {top, merge(x.below(top.first, top.label), y.below(top.first, top.label))};
}

// The summaries of a group's threads, merged: each moves its weights once, when the largest logit of all
// is known.
template <class S, GroupKind kKind>
VAAL_DEVICE Summary<S> merged_over(Group<kKind>& group, const Summary<S>& local) {
  const Ranked<S> top = group.reduce(local.top);
  return {top, group.reduce(local.below(top.first, top.label))};
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
      local.top.rank(first_column + columns.column(first_pack + c, i),
                     to_scalar(unpack<T>(a[c], i)));
  // Nothing but −inf here: all weights are 0.
  const S base = local.top.label == kNoLabel ? S(0) : local.top.first;
#pragma unroll
  for (int c = 0; c < kPacks; ++c)
#pragma unroll
    for (int i = 0; i < kPackItems<T>; ++i) {
      const S alpha = CudaMath<S>::max(to_scalar(unpack<T>(a[c], i)) - base, kNoWeight<S>);
      const bool pivot = first_column + columns.column(first_pack + c, i) == local.top.label;
      const S weight = pivot ? S(0) : plain_exp(alpha);
      local.weights.rest += weight;
      local.weights.weighted += weight * alpha;
    }
  return local;
}

template <class T>
VAAL_DEVICE void write_summary(const SummaryArguments<T>& args, int64_t row,
                               const Summary<Scalar<T>>& all) {
  using S = Scalar<T>;
  using M = CudaMath<S>;
  const Ranked<S>& top = all.top;
  const S rest = all.weights.rest + (top.first - top.first);  // NaN where the maximum is not finite
  const S z = 1 + rest;
  args.label[row] = top.label == kNoLabel ? 0 : top.label;
  args.entropy[row] = M::log1p(rest) - all.weights.weighted / z;
  args.margin[row] = -M::expm1(top.second - top.first) / z;
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
    all = merged_over(group, all);
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
    all = merged_over(group, all);
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
