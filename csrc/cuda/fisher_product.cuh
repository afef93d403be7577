// fisher_product: F·v of softmax rows, each row scaled to unit maximum.
//
//   logits, tangents [rows, cols] a, v → out [rows, cols]
//
// The formulas are in csrc/math/fisher.h. Three reductions a row: the pivot, the runner-up and
// max|v|; the sums; the peak of the entries. In the register paths a thread turns every class into
// (w, t), one exponential each; a longer row is read again in each of the four steps, from shared
// memory as far as it fits there, else from L2.
// Bytes moved, E the size of an element: 3·E·cols a row with the row on the chip.
#pragma once

#include "cuda/arguments.h"
#include "cuda/elementary.cuh"
#include "cuda/kl_row.cuh"
#include "cuda/row_packs.cuh"
#include "math/fisher.h"

namespace vaal {

template <class S>
struct FisherTop {
  S first = S(-INFINITY), second = S(-INFINITY);  // the two largest logits
  S largest = 0;                                  // max|v| over the classes that are not ruled out
  int index = kNoClass;                           // of the largest logit; ties: the smallest
  int padding = 0;                                // whole words in both types

  // Classes come in ascending order. NaN is passed over here; the sums meet it.
  VAAL_DEVICE void absorb(int j, S a, S v) {
    using M = CudaMath<S>;
    const bool wins = a > first;
    second = wins ? first : M::max(second, a);
    first = wins ? a : first;
    index = wins ? j : index;
    largest = a == S(-INFINITY) ? largest : M::max(largest, M::abs(v));
  }
};

template <class S>
VAAL_DEVICE FisherTop<S> merge(const FisherTop<S>& x, const FisherTop<S>& y) {
  using M = CudaMath<S>;
  const bool x_wins = x.first > y.first || (x.first == y.first && x.index < y.index);
  FisherTop<S> both;
  both.first = x_wins ? x.first : y.first;
  both.index = x_wins ? x.index : y.index;
  both.second = M::max(x_wins ? y.first : x.first, M::max(x.second, y.second));
  both.largest = M::max(x.largest, y.largest);
  return both;
}

template <class S>
struct FisherClass {
  S w, t;
};

template <class S>
struct FisherSums {
  S R = 0, U = 0;

  VAAL_DEVICE void absorb(const FisherClass<S>& c) {
    R += c.w;
    U += c.w * c.t;
  }
};

template <class S>
VAAL_DEVICE FisherSums<S> merge(const FisherSums<S>& x, const FisherSums<S>& y) {
  return {x.R + y.R, x.U + y.U};
}

template <class S>
struct FisherPeak {
  S peak = 0;

  VAAL_DEVICE void absorb(S entry) { peak = peak_of(peak, CudaMath<S>::abs(entry)); }
  // What entries are raised by before they are divided: the reciprocal of a tiny peak is not finite.
  VAAL_DEVICE S up() const { return peak < S(1e-19) ? S(0x1p80) : S(1); }
  VAAL_DEVICE Quotient<S> quotient() const { return Quotient<S>(peak == 0 ? S(1) : peak * up()); }
};

template <class S>
VAAL_DEVICE FisherPeak<S> merge(const FisherPeak<S>& x, const FisherPeak<S>& y) {
  return {peak_of(x.peak, y.peak)};
}

// What the classes of a row are measured from.
template <class S>
struct FisherReference {
  S a_k, second, v_k, scale;  // a_k, a_r, v_k, s
  int pivot;

  // v: the row's first tangent.
  template <class T>
  VAAL_DEVICE FisherReference(const FisherTop<S>& top, const T* v)
      : a_k(top.first),
        second(top.second),
        v_k(0),
        scale(tangent_scale<S>(top.largest)),
        pivot(top.index == kNoClass ? 0 : top.index) {
    v_k = to_scalar(load_one(v + pivot));
  }

  VAAL_DEVICE FisherClass<S> class_of(int j, S a, S v) const {
    if (j == pivot || a == S(-INFINITY)) return {0, 0};
    return {plain_exp(a - second), (v - v_k) * scale};
  }

  // A pivot that is not finite makes the row NaN.
  VAAL_DEVICE FisherRow<S> row(const FisherSums<S>& sums) const {
    const S m = second == S(-INFINITY) ? S(0) : second - a_k;  // C = 1, or nothing but the pivot
    return fisher_row<S>(CudaMath<S>::exp(m), sums.R, sums.U + (a_k - a_k) + (v_k - v_k));
  }

  VAAL_DEVICE S entry(const FisherRow<S>& row, int j, const FisherClass<S>& c) const {
    return j == pivot ? row.pivot : c.w * (c.t - row.mean);
  }
};

// threads_per_row = 1 … 32: several rows a block; more: the block is the row.
// threads_per_row · kPacks · kPackItems<T> >= cols.
template <class T, int kPacks, bool kBlock>
VAAL_KERNEL(kBlock ? register_shape(Op::kFisherProduct, sizeof(T)).max_threads : kWarpPathThreads)
fisher_registers(FisherArguments<T> args, int threads_per_row) {
  using S = Scalar<T>;
  constexpr int kItems = kPackItems<T>;
  Group<kBlock ? GroupKind::kBlock : GroupKind::kLanes> group(threads_per_row);
  const Pack blank = filled<T>(S(-INFINITY));

  group.each_row(args.rows, [&](int64_t row, bool exists) {
    const Columns<T> columns(group.rank, group.size, exists ? args.cols : 0, args.whole_packs);
    const int64_t offset = row * args.cols;
    Pack a[kPacks], v[kPacks];
    columns.load(args.p + offset, 0, blank, a);
    columns.load(args.q + offset, 0, blank, v);

    FisherTop<S> top;
#pragma unroll
    for (int c = 0; c < kPacks; ++c)
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        top.absorb(columns.column(c, i), to_scalar(unpack<T>(a[c], i)),
                   to_scalar(unpack<T>(v[c], i)));
    const FisherReference<S> from(group.reduce(top), args.q + offset);

    FisherClass<S> classes[kPacks][kItems];
    FisherSums<S> sums;
#pragma unroll
    for (int c = 0; c < kPacks; ++c)
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const FisherClass<S> held = from.class_of(
            columns.column(c, i), to_scalar(unpack<T>(a[c], i)), to_scalar(unpack<T>(v[c], i)));
        classes[c][i] = held;
        sums.absorb(held);
      }
    const FisherRow<S> known = from.row(group.reduce(sums));

    FisherPeak<S> peak;
#pragma unroll
    for (int c = 0; c < kPacks; ++c)
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        peak.absorb(from.entry(known, columns.column(c, i), classes[c][i]));
    peak = group.reduce(peak);
    const Quotient<S> quotient = peak.quotient();
    const S up = peak.up();
    if (!exists) return;
#pragma unroll
    for (int c = 0; c < kPacks; ++c) {
      Pack out{};
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        put(out, i,
            from_scalar<T>(
                quotient.of(up * from.entry(known, columns.column(c, i), classes[c][i]))));
      columns.store(args.out + offset, c, out);
    }
  });
}

// A block a row, of any length.
template <class T>
VAAL_KERNEL(long_row_threads(sizeof(T)))
fisher_stream(FisherArguments<T> args, int cached_packs) {
  using S = Scalar<T>;
  constexpr int kItems = kPackItems<T>;
  Group<GroupKind::kBlock> group(thread_count());
  group.each_row(args.rows, [&](int64_t row, bool) {
    const int64_t offset = row * args.cols;
    const Columns<T> columns(group.rank, group.size, args.cols, args.whole_packs);
    const RowPacks<T, 2> packs{columns,
                               {args.p + offset, args.q + offset},
                               SharedArray<Pack>(kReductionBytes),
                               cached_packs,
                               group.size,
                               group.rank,
                               filled<T>(S(-INFINITY))};
    const auto item = [](const Pack& pack, int i) { return to_scalar(unpack<T>(pack, i)); };
    FisherTop<S> top;
    packs.template first_read<2>([&](int c, const Pack(&pack)[2]) {
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        top.absorb(columns.column(c, i), item(pack[0], i), item(pack[1], i));
    });
    const FisherReference<S> from(group.reduce(top), args.q + offset);
    const auto class_of = [&](int c, const Pack(&pack)[2], int i) {
      return from.class_of(columns.column(c, i), item(pack[0], i), item(pack[1], i));
    };

    FisherSums<S> sums;
    packs.again([&](int c, const Pack(&pack)[2]) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) sums.absorb(class_of(c, pack, i));
    });
    const FisherRow<S> known = from.row(group.reduce(sums));

    FisherPeak<S> peak;
    packs.again([&](int c, const Pack(&pack)[2]) {
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        peak.absorb(from.entry(known, columns.column(c, i), class_of(c, pack, i)));
    });
    peak = group.reduce(peak);
    const Quotient<S> quotient = peak.quotient();
    const S up = peak.up();
    packs.again([&](int c, const Pack(&pack)[2]) {
      Pack out{};
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        put(out, i,
            from_scalar<T>(
                quotient.of(up * from.entry(known, columns.column(c, i), class_of(c, pack, i)))));
      columns.store(args.out + offset, c, out);
    });
  });
}

template <class T>
void launch_fisher(const FisherArguments<T>& args, const LaunchPlan& plan, Stream stream) {
  constexpr RegisterShape kShape = register_shape(Op::kFisherProduct, sizeof(T));
  const LaunchShape shape{plan.blocks, plan.block_threads, plan.shared_bytes, stream};
  if (plan.path == Path::kStream) {
    launch(fisher_stream<T>, shape, args, plan.cached_packs);
    return;
  }
  const auto kernel = plan.path == Path::kWarp ? fisher_registers<T, kShape.many_packs, false>
                                               : fisher_registers<T, kShape.many_packs, true>;
  launch(kernel, shape, args, plan.threads_per_row);
}

}  // namespace vaal
