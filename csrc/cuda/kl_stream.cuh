// symmetric_kl, its backward and its direction, a block a row that is too long for registers.
//
//   p, q [rows, cols] → value [rows]; grad_p, grad_q [rows, cols]        no smoothing
//
// The steps are those of kl_plain.cuh. A step computes the exponentials of its classes anew, but the last
// one of the direction: it finds the entries, unscaled, where the logits lay in shared memory.
// Bytes moved, E the size of an element: 2·E·cols a row and what is written, E·cols or 2·E·cols, as long as
// the row fits in shared memory. What does not is read again in every step, from L2 where the rows in
// flight fit there.
#pragma once

#include "cuda/arguments.h"
#include "cuda/kl_any_row.cuh"
#include "cuda/kl_plain.cuh"
#include "cuda/row_packs.cuh"

namespace vaal {

// What the row's gradient is multiplied by in the step that writes it: dL/dvalue in the backward.
template <class T>
VAAL_DEVICE Scalar<T> upstream_of(const KlArguments<T>& args, int64_t row) {
  return args.direction || args.grad_value == nullptr
             ? Scalar<T>(1)
             : load_one(args.grad_value + row * args.grad_value_stride);
}

// The steps on a thread's packs of a row, or of a part of it. What they know of the row comes from
// reductions in between.
template <class T>
struct KlPlainPacks {
  using S = Scalar<T>;
  static constexpr int kItems = kPackItems<T>;
  static constexpr int kAhead = 2;

  const KlArguments<T>& args;
  RowPacks<T, 2> packs;
  int64_t offset;  // of the first element in the tensors

  VAAL_DEVICE KlPlainPacks(const KlArguments<T>& arguments, int64_t at, int columns, int size,
                           int rank, const SharedArray<Pack>& cache, int cached)
      : args(arguments),
        packs{{rank, size, columns, arguments.whole_packs},
              {arguments.p + at, arguments.q + at},
              cache,
              cached,
              size,
              rank,
              filled<T>(kPlainBlank<T>)},
        offset(at) {}

  VAAL_DEVICE PlainTop<S> top() const {
    PlainTop<S> top;
    packs.template first_read<kAhead>([&](int, const Pack(&pack)[2]) {
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        top.absorb(to_scalar(unpack<T>(pack[0], i)), to_scalar(unpack<T>(pack[1], i)));
    });
    return top;
  }

  VAAL_DEVICE static PlainClass<S> class_of(const PlainTop<S>& top, const Pack (&pack)[2], int i) {
    return plain_class(top, to_scalar(unpack<T>(pack[0], i)), to_scalar(unpack<T>(pack[1], i)));
  }

  VAAL_DEVICE PlainSums<S> sums(const PlainTop<S>& top, PlainMoment<S>& moment) const {
    PlainSums<S> sums;
    packs.again([&](int, const Pack(&pack)[2]) {
      PlainClass<S> classes[kItems];
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        classes[i] = class_of(top, pack, i);
        sums.absorb(classes[i]);
      }
      if (args.grad_p == nullptr) return;
#pragma unroll
      for (int i = 0; i < kItems; ++i) moment.absorb(classes[i]);
    });
    return sums;
  }

  // The backward writes its gradients here, and the direction keeps them in the cache.
  VAAL_DEVICE PlainTotals<S> totals(const PlainTop<S>& top, const PivotRow<S>& row,
                                    S factor) const {
    PlainTotals<S> totals;
    packs.again([&](int c, const Pack(&pack)[2]) {
      PlainClass<S> classes[kItems];
#pragma unroll
      for (int i = 0; i < kItems; ++i) classes[i] = class_of(top, pack, i);
      if (args.symmetric) absorb<true>(totals, row, factor, c, classes);
      else absorb<false>(totals, row, factor, c, classes);
    });
    return totals;
  }

  // The direction.
  VAAL_DEVICE void write(const PlainTop<S>& top, const PivotRow<S>& row,
                         const Quotient<S>& quotient) const {
#pragma unroll 1
    for (int c = 0; c < packs.columns.packs(); ++c) {
      S entries[kItems];
      if (c < packs.cached) {
        recall(c, entries);
      } else {
        const Pack pack[2] = {packs.columns.load(packs.row[0], c, packs.blank),
                              packs.columns.load(packs.row[1], c, packs.blank)};
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
          const PlainClass<S> held = class_of(top, pack, i);
          const S x = posterior_change(row, held.w, held.d);
          entries[i] = args.symmetric
                           ? grad_q_term<true, false>(row, held.w + held.d, x, held.delta)
                           : grad_q_term<false, false>(row, held.w + held.d, x, held.delta);
        }
      }
      Pack out{};
#pragma unroll
      for (int i = 0; i < kItems; ++i) put(out, i, from_scalar<T>(quotient.of(entries[i])));
      packs.columns.store(args.grad_q + offset, c, out);
    }
  }

 private:
  // One pack of totals().
  template <bool kSymmetric>
  VAAL_DEVICE void absorb(PlainTotals<S>& totals, const PivotRow<S>& row, S factor, int c,
                          const PlainClass<S> (&classes)[kItems]) const {
    const auto absorb_value = [&](const PlainClass<S>& held, S x) {
      totals.value += value_term<CudaMath<S>, kSymmetric, false>(row, held.w, x,
                                                                 held.delta - row.log_ratio);
    };
    Pack out{};
    if (args.grad_q != nullptr) {
      S entries[kItems];
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const PlainClass<S>& held = classes[i];
        const S x = posterior_change(row, held.w, held.d);
        absorb_value(held, x);
        entries[i] = grad_q_term<kSymmetric, false>(row, held.w + held.d, x, held.delta);
        totals.absorb_entry(entries[i]);
        put(out, i, from_scalar<T>(entries[i] * factor));
      }
      if (!args.direction) packs.columns.store(args.grad_q + offset, c, out);
      else if (c < packs.cached) keep(c, entries);
    } else {
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        absorb_value(classes[i], posterior_change(row, classes[i].w, classes[i].d));
    }
    if (args.grad_p != nullptr) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const PlainClass<S>& held = classes[i];
        const S x = posterior_change(row, held.w, held.d);
        const S entry = grad_p_term<kSymmetric, false>(row, held.w, x, held.delta);
        totals.absorb_entry(entry);
        put(out, i, from_scalar<T>(entry * factor));
      }
      packs.columns.store(args.grad_p + offset, c, out);
    }
  }

  // A pack's entries take the place of its logits: as many bytes, or half of them.
  static constexpr int kKept = static_cast<int>(sizeof(S) / sizeof(T)), kOfOne = kItems / kKept;

  VAAL_DEVICE void keep(int c, const S (&entries)[kItems]) const {
#pragma unroll
    for (int n = 0; n < kKept; ++n) {
      Pack pack{};
#pragma unroll
      for (int i = 0; i < kOfOne; ++i) put<S>(pack, i, entries[n * kOfOne + i]);
      packs.cache.store(packs.place(c, n), pack);
    }
  }
  VAAL_DEVICE void recall(int c, S (&entries)[kItems]) const {
#pragma unroll
    for (int n = 0; n < kKept; ++n) {
      const Pack pack = packs.cache.load(packs.place(c, n));
#pragma unroll
      for (int i = 0; i < kOfOne; ++i) entries[n * kOfOne + i] = unpack<S>(pack, i);
    }
  }
};

template <class T>
VAAL_KERNEL(long_row_threads(sizeof(T)))
kl_stream(KlArguments<T> args, int cached_packs) {
  using S = Scalar<T>;
  Group<GroupKind::kBlock> group(thread_count());
  const SharedArray<Pack> cache(kReductionBytes);
  group.each_row(args.rows, [&](int64_t row_index, bool) {
    const KlPlainPacks<T> steps(args, row_index * args.cols, args.cols, group.size, group.rank,
                                cache, cached_packs);
    const PlainTop<S> top = group.reduce(steps.top());
    PlainMoment<S> moment;
    const PlainSums<S> sums = group.reduce(steps.sums(top, moment));
    if (args.grad_p != nullptr) moment = group.reduce(moment);
    const PivotRow<S> row = row_of(sums, moment);
    const PlainTotals<S> totals = group.reduce(
        steps.totals(top, row, upstream_of(args, row_index)));
    if (!plain_enough(args, top, sums.reach, row, totals)) {
      kl_any_row<false>(group, args, row_index, cache, 0, true);
      return;
    }
    if (args.value != nullptr && group.rank == 0) args.value[row_index] = totals.value;
    if (args.direction) steps.write(top, row, Quotient<S>(totals.peak));
  });
}

}  // namespace vaal
