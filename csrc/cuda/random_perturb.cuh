// random_perturb: out = x + radius·n/‖n‖₂ with n drawn anew for every sample.
//
//   x, out [rows, cols] in logical (contiguous) order          sample_index int64 [rows]
//   n_e = the standard normals of csrc/math/philox.h for (seed, sample_index[row], e)
//
// The normals never touch memory: a thread keeps its own in registers between the norm and the
// addition, and the split path draws them a second time. Float arithmetic for half types and
// float32, double for float64.
// Bytes moved, E the size of an element: 2·E·cols a row in both paths.
#pragma once

#include "cuda/arguments.h"
#include "cuda/group.cuh"
#include "cuda/split_part.cuh"
#include "cuda/storage.cuh"
#include "math/philox.h"

namespace vaal {

// A thread works on units of consecutive elements: whole Philox blocks (four normals) and whole
// packs at once.
template <class T>
constexpr int kUnitItems = kPackItems<T> > 4 ? kPackItems<T> : 4;

// Normals 4·block … 4·block + 3 of a sample.
template <class S>
VAAL_DEVICE void draw_four(uint64_t seed, uint64_t sample, uint64_t block, S* normals) {
  using M = CudaMath<S>;
  const PhiloxBlock<uint32_t> counter{
      {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
       static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32)}};
  const auto words = philox4x32_10<M>(counter, static_cast<uint32_t>(seed),
                                      static_cast<uint32_t>(seed >> 32));
  box_muller<M>(words.word[0], words.word[1], normals[0], normals[1]);
  box_muller<M>(words.word[2], words.word[3], normals[2], normals[3]);
}

// Unit u of the part of a row that begins at column `begin` (a multiple of kUnitItems) and has
// `length` columns: its normals, and 0 past the end.
template <class T>
VAAL_DEVICE void draw_unit(const RandomPerturbArguments<T>& args, int64_t sample, int64_t begin,
                           int length, int unit, Scalar<T>* normals) {
#pragma unroll
  for (int i = 0; i < kUnitItems<T>; i += 4)
    draw_four(args.seed, static_cast<uint64_t>(sample),
              static_cast<uint64_t>((begin + int64_t{unit} * kUnitItems<T> + i) / 4), normals + i);
#pragma unroll
  for (int i = 0; i < kUnitItems<T>; ++i)
    if (unit * kUnitItems<T> + i >= length) normals[i] = 0;
}

template <class T>
constexpr int kUnitPacks = kUnitItems<T> / kPackItems<T>;

// Packs of unit u: 16-byte accesses where rows are aligned, single elements elsewhere.
template <class T>
VAAL_DEVICE void load_unit(const T* x, int length, int unit, bool whole,
                           Pack (&packs)[kUnitPacks<T>]) {
#pragma unroll
  for (int c = 0; c < kUnitPacks<T>; ++c) {
    const Columns<T> here(unit * kUnitPacks<T> + c, 1, length, true);
    packs[c] = Pack{};
    if (whole) {
      packs[c] = here.load(x, 0, Pack{});
    } else {
#pragma unroll
      for (int i = 0; i < kPackItems<T>; ++i)
        if (here.column(0, i) < length) put(packs[c], i, load_one(x + here.column(0, i)));
    }
  }
}

template <class T>
VAAL_DEVICE void store_unit(T* out, int length, int unit, bool whole,
                            const Pack (&x)[kUnitPacks<T>], const Scalar<T>* normals,
                            Scalar<T> factor) {
#pragma unroll
  for (int c = 0; c < kUnitPacks<T>; ++c) {
    const Columns<T> here(unit * kUnitPacks<T> + c, 1, length, true);
    Pack sum{};
#pragma unroll
    for (int i = 0; i < kPackItems<T>; ++i)
      put(sum, i,
          from_scalar<T>(to_scalar(unpack<T>(x[c], i)) + normals[c * kPackItems<T> + i] * factor));
    if (whole) {
      here.store(out, 0, sum);
    } else {
#pragma unroll
      for (int i = 0; i < kPackItems<T>; ++i)
        if (here.column(0, i) < length) out[here.column(0, i)] = unpack<T>(sum, i);
    }
  }
}

template <class S>
struct Squares {
  S sum = 0;
};
template <class S>
VAAL_DEVICE Squares<S> merge(const Squares<S>& x, const Squares<S>& y) {
  return {x.sum + y.sum};
}

template <class S>
VAAL_DEVICE S step_factor(const Squares<S>& all, S radius) {
  return all.sum == 0 ? S(0) : radius / CudaMath<S>::sqrt(all.sum);
}

// threads_per_row = 1 … 32: several rows a block; more: the block is the row.
// threads_per_row · kUnits · kUnitItems<T> >= cols.
template <class T, int kUnits, bool kBlock>
VAAL_KERNEL(kBlock ? register_shape(Op::kRandomPerturb, sizeof(T)).max_threads : kWarpPathThreads)
random_perturb_registers(RandomPerturbArguments<T> args, int threads_per_row) {
  using S = Scalar<T>;
  Group<kBlock ? GroupKind::kBlock : GroupKind::kLanes> group(threads_per_row);
  group.each_row(args.rows, [&](int64_t row, bool exists) {
    const int length = exists ? static_cast<int>(args.cols) : 0;
    const int64_t offset = row * args.cols;
    const int64_t sample = load_one(args.sample_index + row);
    Pack x[kUnits][kUnitPacks<T>];
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
      load_unit(args.x + offset, length, u * group.size + group.rank, args.whole_packs, x[u]);
    S normals[kUnits][kUnitItems<T>];
    Squares<S> squares;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      draw_unit(args, sample, 0, length, u * group.size + group.rank, normals[u]);
#pragma unroll
      for (int i = 0; i < kUnitItems<T>; ++i) squares.sum += normals[u][i] * normals[u][i];
    }
    const S factor = step_factor(group.reduce(squares), args.radius);
    if (!exists) return;
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
      store_unit(args.out + offset, length, u * group.size + group.rank, args.whole_packs, x[u],
                 normals[u], factor);
  });
}

// Split path, first kernel: partials [rows, splits]. part is a multiple of kUnitItems<T>.
template <class T>
VAAL_KERNEL(kSplitThreads)
random_perturb_split_norm(RandomPerturbArguments<T> args, int splits, int part,
                          Squares<Scalar<T>>* partials) {
  using S = Scalar<T>;
  Group<GroupKind::kBlock> group(thread_count());
  for (int64_t block = block_index(); block < args.rows * splits; block += block_count()) {
    const SplitPart here(block, splits, part, args.cols);
    const int64_t sample = load_one(args.sample_index + here.row);
    Squares<S> squares;
    for (int unit = group.rank; unit * kUnitItems<T> < here.length; unit += group.size) {
      S normals[kUnitItems<T>];
      draw_unit(args, sample, int64_t{here.split} * part, here.length, unit, normals);
#pragma unroll
      for (int i = 0; i < kUnitItems<T>; ++i) squares.sum += normals[i] * normals[i];
    }
    squares = group.reduce(squares);
    if (group.rank == 0) partials[block] = squares;
  }
}

// Second kernel.
template <class T>
VAAL_KERNEL(kSplitThreads)
random_perturb_split_add(RandomPerturbArguments<T> args, int splits, int part,
                         Squares<Scalar<T>>* partials) {
  using S = Scalar<T>;
  Group<GroupKind::kBlock> group(thread_count());
  for (int64_t block = block_index(); block < args.rows * splits; block += block_count()) {
    const SplitPart here(block, splits, part, args.cols);
    const int64_t sample = load_one(args.sample_index + here.row);
    Squares<S> all;
    for (int s = group.rank; s < splits; s += group.size)
      all.sum += partials[here.row * splits + s].sum;
    const S factor = step_factor(group.reduce(all), args.radius);
    for (int unit = group.rank; unit * kUnitItems<T> < here.length; unit += group.size) {
      Pack x[kUnitPacks<T>];
      load_unit(args.x + here.offset, here.length, unit, args.whole_packs, x);
      S normals[kUnitItems<T>];
      draw_unit(args, sample, int64_t{here.split} * part, here.length, unit, normals);
      store_unit(args.out + here.offset, here.length, unit, args.whole_packs, x, normals, factor);
    }
  }
}

// From a plan to the launches. workspace: random_perturb_workspace_bytes().
template <class T>
int64_t random_perturb_workspace_bytes(const LaunchPlan& plan, int64_t rows) {
  return plan.path == Path::kSplit ? rows * plan.splits * int64_t{sizeof(Squares<Scalar<T>>)} : 0;
}

template <class T>
void launch_random_perturb(const RandomPerturbArguments<T>& args, const LaunchPlan& plan,
                           void* workspace, Stream stream) {
  constexpr RegisterShape kShape = register_shape(Op::kRandomPerturb, sizeof(T));
  constexpr int kFewUnits = kShape.few_packs / kUnitPacks<T>;
  constexpr int kManyUnits = kShape.many_packs / kUnitPacks<T>;
  const LaunchShape shape{plan.blocks, plan.block_threads, plan.shared_bytes, stream};
  if (plan.path == Path::kSplit) {
    auto* const partials = static_cast<Squares<Scalar<T>>*>(workspace);
    const int part = split_part(plan, args.cols, kUnitItems<T>);
    launch(random_perturb_split_norm<T>, shape, args, plan.splits, part, partials);
    launch(random_perturb_split_add<T>, shape, args, plan.splits, part, partials);
    return;
  }
  auto kernel = random_perturb_registers<T, kManyUnits, true>;
  if (plan.path == Path::kWarp) {
    kernel = random_perturb_registers<T, kManyUnits, false>;
    if (plan.items_per_thread == kFewUnits * kUnitItems<T>)
      kernel = random_perturb_registers<T, kFewUnits, false>;
  }
  launch(kernel, shape, args, plan.threads_per_row);
}

}  // namespace vaal
