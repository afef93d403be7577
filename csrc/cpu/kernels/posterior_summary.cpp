// posterior_summary: pseudo label, entropy and margin of softmax(logits), in two passes.
//
//   logits [rows, cols] a          label int64 [rows]          entropy, margin [rows]
//   k = argmax a    α_j = a_j − a_k    R = Σ_{j≠k} e^α_j    Z = 1 + R
//   entropy = log1p(R) − (1/Z) Σ_{j≠k} e^α_j α_j  (nats; every term ≥ 0)
//   margin  = p_k − p_runner-up = −expm1(α_runner-up) / Z

#include "cpu/kernels.h"
#include "cpu/kernels/rows.h"
#include "math/pivot_kl.h"

namespace vaal::VAAL_ISA {
namespace {

template <class T, class S, class Rows>
void summarise(const SummaryArguments& args, int64_t begin, int64_t end) {
  using M = SimdMath<S>;
  using V = typename Register<S>::V;
  const int64_t cols = args.cols;
  Scratch<S> scratch(padded_length<S, Rows>(cols));
  for (int64_t first = begin; first < end; first += Rows::kRows) {
    const Rows rows(static_cast<const T*>(args.logits), first, end, cols, S(-__builtin_inf()),
                    scratch.data);
    const TopTwo<S> top = top_two<S>(rows, cols);
    const V a_k = top.first;
    LongSum<V> sum_weight{a_k - a_k, V{}}, sum_weighted{};  // NaN where the pivot is not finite
    V block_weight{}, block_weighted{};
    each_step<S, Rows>(cols, [&](int64_t j, int64_t, auto whole) __attribute__((always_inline)) {
      const V alpha = rows.template at<whole()>(j) - a_k;
      const V weight = Rows::index(j) == top.index ? V{} : M::exp(alpha);
      block_weight += weight;
      block_weighted += weigh(weight, alpha);
    }, [&]() __attribute__((always_inline)) {
      sum_weight.take(block_weight);
      sum_weighted.take(block_weighted);
    });
    const V remainder = Rows::sum(sum_weight.total), z = 1 + remainder;
    Rows::write_row(static_cast<S*>(args.entropy), first, end,
                    M::log1p(remainder) - Rows::sum(sum_weighted.total) / z);
    Rows::write_row(static_cast<S*>(args.margin), first, end, -M::expm1(top.second - a_k) / z);
    for (int lane = 0; lane < Rows::kRows && first + lane < end; ++lane)
      args.label[first + lane] = top.index[lane];
  }
}

template <class T, class S>
void run(const SummaryArguments& args, int64_t begin, int64_t end) {
  across_pays<S>(args.cols, args.rows) ? summarise<T, S, Across<T, S>>(args, begin, end)
                                       : summarise<T, S, Along<T, S>>(args, begin, end);
}

}  // namespace

void posterior_summary(const SummaryArguments& args, int64_t begin, int64_t end) {
  VAAL_DISPATCH_STORAGE(args.storage, run, args, begin, end);
}

}  // namespace vaal::VAAL_ISA
