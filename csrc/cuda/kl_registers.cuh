// symmetric_kl, its backward and its direction with the row kept in registers between the steps.
//
//   p, q [rows, cols] → value [rows]; grad_p, grad_q [rows, cols]        no smoothing
//
// The steps are those of kl_plain.cuh. A thread loads its packs of both rows, all before the first is
// used, and turns every class into (w, d, δ): two exponentials a class, whatever the number of steps.
// A row that is not for these formulas is done once more, by kl_any_row.
// Bytes moved, E the size of an element:  forward 2·E·cols a row; backward and direction 3·E·cols
// (4·E·cols with both gradients). Nothing is read twice.
#pragma once

#include <type_traits>

#include "cuda/arguments.h"
#include "cuda/kl_any_row.cuh"
#include "cuda/kl_plain.cuh"

namespace vaal {

constexpr RegisterShape kl_shape(int dtype_size) {
  return register_shape(Op::kSymmetricKl, dtype_size);  // the same for the three ops
}

// Blocks that a multiprocessor is to hold: as many as no register is spilled for. For compute
// capabilities from 10.0 on nvcc pairs float32 operations, which takes more registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool kPaired = true;
#else
constexpr bool kPaired = false;
#endif
constexpr int kl_blocks(int dtype_size, bool block) {
  if (dtype_size == 8) return 1;
  if (block) return kPaired ? 1 : 2;
  return kPaired && dtype_size == 2 ? 4 : 5;
}

// threads_per_row = 1 … 32: several rows a block; more: the block is the row.
// threads_per_row · kPacks · kPackItems<T> >= cols.
template <Op kOp, class T, int kPacks, bool kBlock>
VAAL_KERNEL_OF(kBlock ? kl_shape(sizeof(T)).max_threads : kWarpPathThreads,
               kl_blocks(sizeof(T), kBlock))
kl_registers(KlArguments<T> args, int threads_per_row) {
  using S = Scalar<T>;
  constexpr int kItems = kPackItems<T>;
  constexpr bool kDirection = kOp == Op::kSymmetricKlDirection;
  constexpr bool kBackward = kOp == Op::kSymmetricKlBackward;
  const bool by_q = kDirection || (kBackward && args.grad_q != nullptr);
  const bool by_p = kBackward && args.grad_p != nullptr;

  Group<kBlock ? GroupKind::kBlock : GroupKind::kLanes> group(threads_per_row);
  const Pack blank = filled<T>(kPlainBlank<T>);

  group.each_row(args.rows, [&](int64_t row_index, bool exists) {
    const Columns<T> columns(group.rank, group.size, exists ? args.cols : 0, args.whole_packs);
    const int64_t offset = row_index * args.cols;
    Pack a[kPacks], b[kPacks];
    columns.load(args.p + offset, 0, blank, a);
    columns.load(args.q + offset, 0, blank, b);

    // f(pack, item): what is known when the kernel is compiled keeps the arrays in registers.
    const auto each = [&](auto&& f) {
#pragma unroll
      for (int c = 0; c < kPacks; ++c)
#pragma unroll
        for (int i = 0; i < kItems; ++i) f(c, i);
    };

    PlainTop<S> top;
    each([&](int c, int i) {
      top.absorb(to_scalar(unpack<T>(a[c], i)), to_scalar(unpack<T>(b[c], i)));
    });
    top = group.reduce(top);

    PlainClass<S> classes[kPacks][kItems];
    PlainSums<S> sums;
    each([&](int c, int i) {
      classes[c][i] = plain_class(top, to_scalar(unpack<T>(a[c], i)),
                                  to_scalar(unpack<T>(b[c], i)));
      sums.absorb(classes[c][i]);
    });
    sums = group.reduce(sums);
    PlainMoment<S> moment;
    if (by_p) {
      each([&](int c, int i) { moment.absorb(classes[c][i]); });
      moment = group.reduce(moment);
    }
    const PivotRow<S> row = row_of(sums, moment);
    const auto finish = [&](auto divergence) {
      constexpr bool kSymmetric = divergence.value;
      const auto grad_q = [&](const PlainClass<S>& c) {
        return grad_q_term<kSymmetric, false>(row, c.w + c.d, posterior_change(row, c.w, c.d),
                                              c.delta);
      };
      const auto grad_p = [&](const PlainClass<S>& c) {
        return grad_p_term<kSymmetric, false>(row, c.w, posterior_change(row, c.w, c.d), c.delta);
      };
      PlainTotals<S> totals;
      const auto absorb_value = [&](const PlainClass<S>& c) {
        totals.value += value_term<CudaMath<S>, kSymmetric, false>(
            row, c.w, posterior_change(row, c.w, c.d), c.delta - row.log_ratio);
      };
      if (by_q) {
        each([&](int c, int i) {
          absorb_value(classes[c][i]);
          totals.absorb_entry(grad_q(classes[c][i]));
        });
      } else {
        each([&](int c, int i) { absorb_value(classes[c][i]); });
      }
      if (by_p) each([&](int c, int i) { totals.absorb_entry(grad_p(classes[c][i])); });
      totals = group.reduce(totals);
      const bool plain = !exists || plain_enough(args, top, sums.reach, row, totals);
      if (!plain || !exists) return plain;

      if (args.value != nullptr && group.rank == 0) args.value[row_index] = totals.value;
      // scaled: what an entry of the gradient becomes; f: the entry by its class.
      const auto store = [&](T* out, auto&& scaled, auto&& f) {
#pragma unroll
        for (int c = 0; c < kPacks; ++c) {
          Pack pack{};
#pragma unroll
          for (int i = 0; i < kItems; ++i) put(pack, i, from_scalar<T>(scaled(f(classes[c][i]))));
          columns.store(out + offset, c, pack);
        }
      };
      if constexpr (kDirection) {
        const Quotient<S> quotient(totals.peak);
        store(args.grad_q, [&](S g) { return quotient.of(g); }, grad_q);
      } else if (by_q || by_p) {
        const S factor = load_one(args.grad_value + row_index * args.grad_value_stride);
        const auto times = [&](S g) { return g * factor; };
        if (by_q) store(args.grad_q, times, grad_q);
        if (by_p) store(args.grad_p, times, grad_p);
      }
      return plain;
    };
    const bool plain = args.symmetric ? finish(std::true_type{}) : finish(std::false_type{});
    if (group.any_beside(!plain))
      kl_any_row<false>(group, args, row_index, SharedArray<Pack>(0), 0, exists && !plain);
  });
}

template <Op kOp, class T>
void launch_kl(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace, Stream stream) {
  if (plan.path == Path::kStream || plan.path == Path::kSplit) {
    launch_kl_long_rows(args, plan, workspace, stream);
    return;
  }
  constexpr int kPacks = kl_shape(sizeof(T)).many_packs;
  const auto kernel = plan.path == Path::kWarp ? kl_registers<kOp, T, kPacks, false>
                                               : kl_registers<kOp, T, kPacks, true>;
  launch(kernel, {plan.blocks, plan.block_threads, plan.shared_bytes, stream}, args,
         plan.threads_per_row);
}

}  // namespace vaal
