// fisher_direction: the top eigenvector of the Fisher matrix of softmax rows, and its eigenvalue.
//
//   logits [rows, cols] a → out [rows, cols] v, row maximum 1; curvature [rows] λ
//
// The formulas are in csrc/math/fisher_direction.h. Reductions a row: the pivot and the runner-up; the
// sums of the weights; two to five Newton steps; the sum of the entries. In the register paths a
// thread turns every class into (w, D), one exponential each, and a step costs a division a class. A
// longer row is read again in every step, from shared memory as far as it fits there, else from L2.
// Bytes moved, E the size of an element: 2·E·cols + sizeof(Scalar) a row with the row on the chip.
#pragma once

#include <cmath>

#include "cuda/arguments.h"
#include "cuda/elementary.cuh"
#include "cuda/group.cuh"
#include "cuda/row_packs.cuh"
#include "math/fisher_direction.h"

namespace vaal {

constexpr int kNoPivot = 0x7FFFFFFF;

template <class S>
struct DirectionTop {
  S first = S(-INFINITY), second = S(-INFINITY);  // the two largest logits
  int index = kNoPivot;                           // of the largest; ties: the smallest
  int padding = 0;                                // whole words in both types

  // Classes come in ascending order. NaN is passed over here; the sums meet it.
  VAAL_DEVICE void absorb(int j, S a) {
    const bool wins = a > first;
    second = wins ? first : CudaMath<S>::max(second, a);
    first = wins ? a : first;
    index = wins ? j : index;
  }
};

template <class S>
VAAL_DEVICE DirectionTop<S> merge(const DirectionTop<S>& x, const DirectionTop<S>& y) {
  using M = CudaMath<S>;
  const bool x_wins = x.first > y.first || (x.first == y.first && x.index < y.index);
  DirectionTop<S> both;
  both.first = x_wins ? x.first : y.first;
  both.index = x_wins ? x.index : y.index;
  both.second = M::max(x_wins ? y.first : x.first, M::max(x.second, y.second));
  return both;
}

// R and M; S and T; or Σ v.
template <class S>
struct DirectionSums {
  S first = 0, second = 0;
};

template <class S>
VAAL_DEVICE DirectionSums<S> merge(const DirectionSums<S>& x, const DirectionSums<S>& y) {
  return {x.first + y.first, x.second + y.second};
}

template <class S>
struct DirectionClass {
  S w, d;
};

// What the classes of a row are measured from.
template <class S>
struct DirectionReference {
  S a_r, nothing, e, h, inverse_h;  // nothing: 0, or NaN where a logit makes the row NaN
  int pivot;
  bool alone;  // C = 1, or nothing besides the pivot

  VAAL_DEVICE explicit DirectionReference(const DirectionTop<S>& top)
      : a_r(top.second == S(-INFINITY) ? top.first : top.second),
        nothing(top.first - top.first),
        e(CudaMath<S>::exp(a_r - top.first)),
        h(-CudaMath<S>::expm1(a_r - top.first)),
        inverse_h(inverse_gap<S>(h)),
        pivot(top.index == kNoPivot ? 0 : top.index),
        alone(top.second == S(-INFINITY)) {}

  VAAL_DEVICE DirectionClass<S> class_of(int j, S a) const {
    if (j == pivot || a == S(-INFINITY)) return {0, 1};
    const S x = a - a_r;
    return {plain_exp(x), -plain_expm1(CudaMath<S>::max(x, S(-87))) * inverse_h};
  }

  VAAL_DEVICE S curvature(S R, S sigma) const {
    return alone ? nothing : e / (1 + e * R) * (1 + h * sigma);
  }

  // Σ v is the pivot's own entry, turned round.
  VAAL_DEVICE S entry(int j, const DirectionClass<S>& c, S sigma, S all) const {
    return alone ? nothing : j == pivot ? S(-1) + (all - all) : c.w / (sigma + c.d) / all;
  }
};

// The root σ. each(f) calls f(w, D) for every class of this thread.
template <class S, class G, class Each>
VAAL_DEVICE S root_of(const DirectionReference<S>& from, const DirectionSums<S>& weights, G& group,
                      const Each& each) {
  S sigma = first_root<S>(from.e, weights.first, weights.second);
  bool moves = true;  // a group that is through waits for the others of its warp
  for (int step = 0; step < kMostSteps && group.any_beside(moves); ++step) {
    DirectionSums<S> sums;
    each([&](const DirectionClass<S>& c) {
      const S share = CudaMath<S>::reciprocal_approx(sigma + c.d), s = c.w * share;
      sums.first += s;
      sums.second += s * share;
    });
    sums = group.reduce(sums);
    if (!moves) continue;
    const S next = next_root<S>(from.e, sigma, sums.first, sums.second);
    moves = next - sigma > kLastStep<S> * sigma;
    sigma = next;
  }
  return sigma;
}

// threads_per_row = 1 … 32: several rows a block; more: the block is the row.
// threads_per_row · kPacks · kPackItems<T> >= cols.
template <class T, int kPacks, bool kBlock>
VAAL_KERNEL(kBlock ? register_shape(Op::kFisherDirection, sizeof(T)).max_threads : kWarpPathThreads)
direction_registers(DirectionArguments<T> args, int threads_per_row) {
  using S = Scalar<T>;
  constexpr int kItems = kPackItems<T>;
  Group<kBlock ? GroupKind::kBlock : GroupKind::kLanes> group(threads_per_row);
  const Pack blank = filled<T>(S(-INFINITY));

  group.each_row(args.rows, [&](int64_t row, bool exists) {
    const Columns<T> columns(group.rank, group.size, exists ? args.cols : 0, args.whole_packs);
    const int64_t offset = row * args.cols;
    Pack a[kPacks];
    columns.load(args.logits + offset, 0, blank, a);

    DirectionTop<S> top;
#pragma unroll
    for (int c = 0; c < kPacks; ++c)
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        top.absorb(columns.column(c, i), to_scalar(unpack<T>(a[c], i)));
    DirectionReference<S> from(group.reduce(top));

    DirectionClass<S> classes[kPacks][kItems];
    DirectionSums<S> weights;
#pragma unroll
    for (int c = 0; c < kPacks; ++c)
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const DirectionClass<S> held = from.class_of(columns.column(c, i),
                                                     to_scalar(unpack<T>(a[c], i)));
        classes[c][i] = held;
        weights.first += held.w;
        weights.second += held.w * held.d;
      }
    weights.first += from.nothing;
    weights = group.reduce(weights);
    from.nothing = weights.first - weights.first;

    const auto each = [&](const auto& f) {
#pragma unroll
      for (int c = 0; c < kPacks; ++c)
#pragma unroll
        for (int i = 0; i < kItems; ++i) f(classes[c][i]);
    };
    const S sigma = root_of(from, weights, group, each);
    DirectionSums<S> entries;
    each([&](const DirectionClass<S>& c) { entries.first += c.w / (sigma + c.d); });
    const S all = group.reduce(entries).first;
    if (!exists) return;
#pragma unroll
    for (int c = 0; c < kPacks; ++c) {
      Pack out{};
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        put(out, i, from_scalar<T>(from.entry(columns.column(c, i), classes[c][i], sigma, all)));
      columns.store(args.out + offset, c, out);
    }
    if (group.rank == 0) args.curvature[row] = from.curvature(weights.first, sigma);
  });
}

// A block a row, of any length.
template <class T>
VAAL_KERNEL(long_row_threads(sizeof(T)))
direction_stream(DirectionArguments<T> args, int cached_packs) {
  using S = Scalar<T>;
  constexpr int kItems = kPackItems<T>;
  Group<GroupKind::kBlock> group(thread_count());
  group.each_row(args.rows, [&](int64_t row, bool) {
    const int64_t offset = row * args.cols;
    const Columns<T> columns(group.rank, group.size, args.cols, args.whole_packs);
    const RowPacks<T, 1> packs{columns,
                               {args.logits + offset},
                               SharedArray<Pack>(kReductionBytes),
                               cached_packs,
                               group.size,
                               group.rank,
                               filled<T>(S(-INFINITY))};
    DirectionTop<S> top;
    packs.template first_read<2>([&](int c, const Pack(&pack)[1]) {
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        top.absorb(columns.column(c, i), to_scalar(unpack<T>(pack[0], i)));
    });
    DirectionReference<S> from(group.reduce(top));
    const auto class_of = [&](int c, const Pack(&pack)[1], int i) {
      return from.class_of(columns.column(c, i), to_scalar(unpack<T>(pack[0], i)));
    };
    const auto each = [&](const auto& f) {
      packs.again([&](int c, const Pack(&pack)[1]) {
#pragma unroll
        for (int i = 0; i < kItems; ++i) f(class_of(c, pack, i));
      });
    };
    DirectionSums<S> weights;
    each([&](const DirectionClass<S>& c) {
      weights.first += c.w;
      weights.second += c.w * c.d;
    });
    weights.first += from.nothing;
    weights = group.reduce(weights);
    from.nothing = weights.first - weights.first;

    const S sigma = root_of(from, weights, group, each);
    DirectionSums<S> entries;
    each([&](const DirectionClass<S>& c) { entries.first += c.w / (sigma + c.d); });
    const S all = group.reduce(entries).first;
    packs.again([&](int c, const Pack(&pack)[1]) {
      Pack out{};
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        put(out, i,
            from_scalar<T>(from.entry(columns.column(c, i), class_of(c, pack, i), sigma, all)));
      columns.store(args.out + offset, c, out);
    });
    if (group.rank == 0) args.curvature[row] = from.curvature(weights.first, sigma);
  });
}

template <class T>
void launch_direction(const DirectionArguments<T>& args, const LaunchPlan& plan, Stream stream) {
  constexpr RegisterShape kShape = register_shape(Op::kFisherDirection, sizeof(T));
  const LaunchShape shape{plan.blocks, plan.block_threads, plan.shared_bytes, stream};
  if (plan.path == Path::kStream) {
    launch(direction_stream<T>, shape, args, plan.cached_packs);
    return;
  }
  const auto kernel = plan.path == Path::kWarp ? direction_registers<T, kShape.many_packs, false>
                                               : direction_registers<T, kShape.many_packs, true>;
  launch(kernel, shape, args, plan.threads_per_row);
}

}  // namespace vaal
