// perturb: out = x + radius·d/‖d‖₂ for every sample, and ‖d‖₂.
//
//   x, d, out [rows, cols]          norm [rows]
//   2^e ≤ max|d| < 2^(e+1)    s = Σ (d·2^−e)²    ‖d‖ = √s·2^e    out = x + (d·2^−e)·(radius/√s)
//
// Scaling by a power of two is exact and keeps gradients of 1e-30, of 1e30 and subnormal ones in
// range; partial sums (e, s) are merged by shifting the smaller e. d = 0 gives out = x, norm 0; a
// row of d with an infinity or a NaN gives NaN.
// Bytes moved, E the size of an element: 3·E·cols a row where the row stays in registers (both
// loads are issued before the first use), 4·E·cols in the split path, whose second kernel reads d
// again.
#pragma once

#include <cmath>

#include "cuda/arguments.h"
#include "cuda/group.cuh"
#include "cuda/scaled_squares.cuh"
#include "cuda/split_part.cuh"

namespace vaal {

// What every element needs of the whole row.
template <class S>
struct Step {
  S down;    // 2^−e
  S factor;  // radius/√s
  S norm;

  VAAL_DEVICE Step(const ScaledSquares<S>& all, S radius) {
    const S length = CudaMath<S>::sqrt(all.s);
    down = power_of_two(-all.e, S());
    factor = all.s == 0 ? S(0) : radius / length;
    norm = length * power_of_two(all.e, S());
    if (!(all.s < S(INFINITY))) factor = norm = S(NAN);
  }
};

template <class T, int kPacks>
VAAL_DEVICE void add_step(const Step<Scalar<T>>& step, const Columns<T>& columns,
                          const Pack (&x)[kPacks], const Pack (&d)[kPacks], T* out,
                          int first_pack) {
#pragma unroll
  for (int c = 0; c < kPacks; ++c) {
    Pack sum{};
#pragma unroll
    for (int i = 0; i < kPackItems<T>; ++i)
      put(sum, i,
          from_scalar<T>(to_scalar(unpack<T>(x[c], i)) +
                         to_scalar(unpack<T>(d[c], i)) * step.down * step.factor));
    columns.store(out, first_pack + c, sum);
  }
}

// threads_per_row = 1 … 32: several rows a block; more: the block is the row.
// threads_per_row · kPacks · kPackItems<T> >= cols.
template <class T, int kPacks, bool kBlock>
VAAL_KERNEL(kBlock ? register_shape(Op::kPerturb, sizeof(T)).max_threads : kWarpPathThreads)
perturb_registers(PerturbArguments<T> args, int threads_per_row) {
  using S = Scalar<T>;
  Group<kBlock ? GroupKind::kBlock : GroupKind::kLanes> group(threads_per_row);

  group.each_row(args.rows, [&](int64_t row, bool exists) {
    const Columns<T> columns(group.rank, group.size, exists ? static_cast<int>(args.cols) : 0,
                             args.whole_packs);
    const int64_t offset = row * args.cols;
    Pack d[kPacks], x[kPacks];
    columns.load(args.direction + offset, 0, Pack{}, d);
    columns.load(args.x + offset, 0, Pack{}, x);
    const Step<S> step(group.reduce(scaled_squares<T>(d)), args.radius);
    if (!exists) return;
    if (group.rank == 0) args.norm[row] = step.norm;
    add_step<T>(step, columns, x, d, args.out + offset, 0);
  });
}

// Split path, first kernel: partials [rows, splits]. part is a multiple of the items of a pack.
template <class T, int kPacks>
VAAL_KERNEL(kSplitThreads)
perturb_split_norm(PerturbArguments<T> args, int splits, int part,
                   ScaledSquares<Scalar<T>>* partials) {
  Group<GroupKind::kBlock> group(thread_count());
  for (int64_t block = block_index(); block < args.rows * splits; block += block_count()) {
    const SplitPart here(block, splits, part, args.cols);
    const Columns<T> columns(group.rank, group.size, here.length, args.whole_packs);
    ScaledSquares<Scalar<T>> sum;
    for (int first = 0; first < columns.packs(); first += kPacks) {
      Pack d[kPacks];
      columns.load(args.direction + here.offset, first, Pack{}, d);
      sum = merge(sum, scaled_squares<T>(d));
    }
    sum = group.reduce(sum);
    if (group.rank == 0) partials[block] = sum;
  }
}

// Second kernel.
template <class T, int kPacks>
VAAL_KERNEL(kSplitThreads)
perturb_split_add(PerturbArguments<T> args, int splits, int part,
                  const ScaledSquares<Scalar<T>>* partials) {
  using S = Scalar<T>;
  Group<GroupKind::kBlock> group(thread_count());
  for (int64_t block = block_index(); block < args.rows * splits; block += block_count()) {
    const SplitPart here(block, splits, part, args.cols);
    const Columns<T> columns(group.rank, group.size, here.length, args.whole_packs);
    ScaledSquares<S> all;
    for (int s = group.rank; s < splits; s += group.size)
      all = merge(all, partials[here.row * splits + s]);
    const Step<S> step(group.reduce(all), args.radius);
    if (here.split == 0 && group.rank == 0) args.norm[here.row] = step.norm;
    for (int first = 0; first < columns.packs(); first += kPacks) {
      Pack d[kPacks], x[kPacks];
      columns.load(args.direction + here.offset, first, Pack{}, d);
      columns.load(args.x + here.offset, first, Pack{}, x);
      add_step<T>(step, columns, x, d, args.out + here.offset, first);
    }
  }
}

// From a plan to the launches. workspace: perturb_workspace_bytes().
template <class T>
int64_t perturb_workspace_bytes(const LaunchPlan& plan, int64_t rows) {
  return plan.path == Path::kSplit ? rows * plan.splits * int64_t{sizeof(ScaledSquares<Scalar<T>>)}
                                   : 0;
}

template <class T>
void launch_perturb(const PerturbArguments<T>& args, const LaunchPlan& plan, void* workspace,
                    Stream stream) {
  constexpr RegisterShape kShape = register_shape(Op::kPerturb, sizeof(T));
  const LaunchShape shape{plan.blocks, plan.block_threads, plan.shared_bytes, stream};
  if (plan.path == Path::kSplit) {
    auto* const partials = static_cast<ScaledSquares<Scalar<T>>*>(workspace);
    const int part = split_part(plan, args.cols, kPackItems<T>);
    launch(perturb_split_norm<T, kShape.many_packs>, shape, args, plan.splits, part, partials);
    launch<PerturbArguments<T>, int, int, const ScaledSquares<Scalar<T>>*>(
        perturb_split_add<T, kShape.many_packs>, shape, args, plan.splits, part, partials);
    return;
  }
  auto kernel = perturb_registers<T, kShape.many_packs, true>;
  if (plan.path == Path::kWarp) {
    kernel = perturb_registers<T, kShape.many_packs, false>;
    if (plan.items_per_thread == kShape.few_packs * kPackItems<T>)
      kernel = perturb_registers<T, kShape.few_packs, false>;
  }
  launch(kernel, shape, args, plan.threads_per_row);
}

}  // namespace vaal
