// deepfool_step: of every sample the nearest of K linearised decision boundaries, and the way there.
//
//   logits [samples, classes] f     gradients [samples, candidates, cols] w     step [samples, cols]
//   nearest int64 [samples]         distance [samples]
//   g_j = f(candidate j) − f(reference)     w_j = ∂g_j/∂x = d·2^e     s_j = Σ d²  (scaled_squares.cuh)
//   j = argmin |g_j|/‖w_j‖ = (|g_j|/√s_j)·2^−e     step = (w_j·2^−e)·(distance/√s_j)
//
// Two kernels: the first leaves (e, s) of every row of gradients, or of every part of a row, in a
// workspace; the second chooses, and reads the gradient that it chose again.
// Bytes moved, E the size of an element: E·cols·(candidates + 1) read and E·cols written a sample.
#pragma once

#include <cmath>

#include "cuda/arguments.h"
#include "cuda/group.cuh"
#include "cuda/scaled_squares.cuh"
#include "cuda/split_part.cuh"

namespace vaal {

constexpr int kNoSlot = 0x7FFFFFFF;

// The nearest boundary among some candidates. A state that is merged by a group (group.cuh).
template <class S>
struct Nearest {
  S distance = S(INFINITY);
  S factor = 0;        // distance/√s
  int slot = kNoSlot;  // its place among the candidates
  int e = 0;
  int failed = 0;   // something here was not finite
  int padding = 0;  // whole words in both types
};

template <class S>
VAAL_DEVICE Nearest<S> merge(const Nearest<S>& x, const Nearest<S>& y) {
  const bool x_wins = x.distance == y.distance ? x.slot < y.slot : x.distance < y.distance;
  Nearest<S> both;
  both.distance = x_wins ? x.distance : y.distance;
  both.factor = x_wins ? x.factor : y.factor;
  both.slot = x_wins ? x.slot : y.slot;
  both.e = x_wins ? x.e : y.e;
  both.failed = x.failed | y.failed;
  return both;
}

// The boundary towards one candidate. None where the class is the reference itself, is ruled out
// (−inf), or cannot be reached: a gradient of 0, or a distance beyond the type's range.
template <class T>
VAAL_DEVICE Nearest<Scalar<T>> boundary(const DeepfoolArguments<T>& args, int64_t sample, int slot,
                                        const ScaledSquares<Scalar<T>>& squares) {
  using S = Scalar<T>;
  Nearest<S> found;
  const int64_t reference = args.reference[sample];
  const int64_t candidate = args.candidates[sample * args.count + slot];
  if (candidate == reference) return found;
  if (candidate < 0 || candidate >= args.classes || reference < 0 || reference >= args.classes) {
    found.failed = 1;
    return found;
  }
  const T* const logits = args.logits + sample * args.classes;
  const S gap = to_scalar(load_one(logits + candidate)) - to_scalar(load_one(logits + reference));
  if (gap == -S(INFINITY)) return found;
  found.failed = !(gap < S(INFINITY) && squares.s < S(INFINITY));
  if (found.failed || (squares.s == 0 && gap != 0)) return found;
  const S length = CudaMath<S>::sqrt(squares.s);
  const S distance = gap == 0 ? S(0)
                              : CudaMath<S>::abs(gap) / length * power_of_two(-squares.e, S());
  if (!(distance < S(INFINITY))) return found;
  found.distance = distance;
  found.factor = gap == 0 ? S(0) : distance / length;
  found.slot = slot;
  found.e = squares.e;
  return found;
}

// First kernel: partials [samples·candidates, splits]. A group of threads a row, or a block for
// each of `splits` parts of a row. part is a multiple of the items of a pack; cols where splits = 1.
template <class T, int kPacks, bool kBlock>
VAAL_KERNEL(kBlock ? register_shape(Op::kDeepfoolStep, sizeof(T)).max_threads : kWarpPathThreads)
deepfool_norms(DeepfoolArguments<T> args, int threads_per_row, int splits, int part,
               ScaledSquares<Scalar<T>>* partials) {
  Group<kBlock ? GroupKind::kBlock : GroupKind::kLanes> group(threads_per_row);
  group.each_row(args.samples * args.count * splits, [&](int64_t at, bool exists) {
    const SplitPart here(at, splits, part, args.cols);
    const Columns<T> columns(group.rank, group.size, exists ? here.length : 0, args.whole_packs);
    const int64_t sample = here.row / args.count, slot = here.row - sample * args.count;
    const T* const row = args.gradients + sample * args.sample_stride +
                         slot * args.candidate_stride + (here.offset - here.row * args.cols);
    ScaledSquares<Scalar<T>> sum;
    for (int first = 0; first < columns.packs(); first += kPacks) {
      Pack w[kPacks];
      columns.load(row, first, Pack{}, w);
      sum = merge(sum, scaled_squares<T>(w));
    }
    sum = group.reduce(sum);
    if (group.rank == 0 && exists) partials[at] = sum;
  });
}

// Second kernel: rows are samples here, and their parts those of the step.
template <class T, int kPacks, bool kBlock>
VAAL_KERNEL(kBlock ? register_shape(Op::kDeepfoolStep, sizeof(T)).max_threads : kWarpPathThreads)
deepfool_move(DeepfoolArguments<T> args, int threads_per_row, int splits, int part,
              const ScaledSquares<Scalar<T>>* partials) {
  using S = Scalar<T>;
  Group<kBlock ? GroupKind::kBlock : GroupKind::kLanes> group(threads_per_row);
  group.each_row(args.samples * splits, [&](int64_t at, bool exists) {
    const SplitPart here(at, splits, part, args.cols);
    Nearest<S> best;
    for (int slot = group.rank; slot < args.count; slot += group.size) {
      const ScaledSquares<S>* const row = partials + (here.row * args.count + slot) * splits;
      ScaledSquares<S> sum;
      for (int split = 0; split < splits; ++split) sum = merge(sum, row[split]);
      best = merge(best, boundary(args, here.row, slot, sum));
    }
    best = group.reduce(best);
    if (!exists) return;
    const bool none = best.slot == kNoSlot;
    if (here.split == 0 && group.rank == 0) {
      const bool named = !none && !best.failed;
      args.nearest[here.row] = named ? args.candidates[here.row * args.count + best.slot]
                                     : int64_t{-1};
      args.distance[here.row] = best.failed ? S(NAN) : best.distance;
    }
    const Columns<T> columns(group.rank, group.size, here.length, args.whole_packs);
    const int64_t begin = here.offset - here.row * args.cols;
    const T* const chosen = args.gradients + here.row * args.sample_stride +
                            (none ? 0 : best.slot) * args.candidate_stride + begin;
    const S down = power_of_two(-best.e, S());
    const S failure = best.failed ? S(NAN) : S(0);
    for (int first = 0; first < columns.packs(); first += kPacks) {
      Pack w[kPacks];
      columns.load(chosen, first, Pack{}, w);
#pragma unroll
      for (int c = 0; c < kPacks; ++c) {
        Pack out{};
#pragma unroll
        for (int i = 0; i < kPackItems<T>; ++i) {
          // Without a way to go the gradient is not looked at: it may be that of a class ruled out.
          const S moved = to_scalar(unpack<T>(w[c], i)) * down * best.factor;
          put(out, i, from_scalar<T>(best.factor == 0 || best.failed ? failure : moved));
        }
        columns.store(args.step + here.offset, first + c, out);
      }
    }
  });
}

// From a plan for samples·candidates rows to the launches. workspace: deepfool_workspace_bytes().
template <class T>
int64_t deepfool_workspace_bytes(const LaunchPlan& plan, int64_t rows) {
  return rows * plan.splits * int64_t{sizeof(ScaledSquares<Scalar<T>>)};
}

template <class T>
void launch_deepfool(const DeepfoolArguments<T>& args, const LaunchPlan& plan, void* workspace,
                     Stream stream) {
  constexpr RegisterShape kShape = register_shape(Op::kDeepfoolStep, sizeof(T));
  const bool few = plan.items_per_thread == kShape.few_packs * kPackItems<T>;
  auto norms = deepfool_norms<T, kShape.many_packs, true>;
  auto move = deepfool_move<T, kShape.many_packs, true>;
  if (plan.path == Path::kWarp) {
    norms = few ? deepfool_norms<T, kShape.few_packs, false>
                : deepfool_norms<T, kShape.many_packs, false>;
    move = few ? deepfool_move<T, kShape.few_packs, false>
               : deepfool_move<T, kShape.many_packs, false>;
  }
  const auto partials = static_cast<ScaledSquares<Scalar<T>>*>(workspace);
  const bool split = plan.path == Path::kSplit;
  const int part = split ? split_part(plan, args.cols, kPackItems<T>) : static_cast<int>(args.cols);
  LaunchShape shape{plan.blocks, plan.block_threads, plan.shared_bytes, stream};
  launch(norms, shape, args, plan.threads_per_row, plan.splits, part, partials);
  shape.blocks = std::min(plan.blocks, ceil_div(args.samples, plan.rows_per_block) * plan.splits);
  launch<DeepfoolArguments<T>, int, int, int, const ScaledSquares<Scalar<T>>*>(
      move, shape, args, plan.threads_per_row, plan.splits, part, partials);
}

}  // namespace vaal
