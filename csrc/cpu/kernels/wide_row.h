// One row of symmetric_kl whose argmax moved so far that the pivot's posterior vanishes beside the
// others. J is then of order one and more, and the two log-posteriors can be subtracted directly; in
// double, for the gradient in p may be small all the same (gradient_output.h widens a row).
#pragma once

#include "cpu/kernels/smoothed_row.h"

namespace vaal::VAAL_ISA {

// With u = log q − log p and c = q − p:
//
//   symmetric   value Σ c u         ∂/∂a_j = p_j (h_j − Σ p h) − c_j, h = −u    ∂/∂b_j likewise, + c_j, h = u
//   forward     value Σ c − p u     ∂/∂a_j = p_j (h_j − Σ p h), h = −u          ∂/∂b_j = c_j
//
// Where p is saturated Σ p h is all but h of the largest class: h is measured from it, so that nothing
// cancels.
template <bool kSymmetric, bool kSmoothed>
void wide_row(const KLArguments& args, int64_t index) {
  using M = SimdMath<double>;
  using V = M::V;
  using Rows = Along<double, double>;
  constexpr int64_t kLanes = Register<double>::kLanes;
  const V none = broadcast(-__builtin_inf());
  const int64_t cols = args.cols;
  const int64_t length = padded_length<double, Rows>(cols);
  Scratch<double> columns(4 * length);
  double *const column_p = columns.data, *const column_q = column_p + length;
  double *const column_a = column_q + length, *const column_b = column_a + length;
  // Beyond the row: classes absent from both.
  const Rows a_rows(static_cast<const double*>(args.p), index, index + 1, cols, none[0], nullptr);
  const Rows b_rows(static_cast<const double*>(args.q), index, index + 1, cols, none[0], nullptr);
  const auto each = [&](auto body) {
    for (int64_t j = 0; j < cols; j += kLanes) body(j);
  };

  // The posterior into `column`; returns log Σ e^logit.
  const TopTwo<double> top_a = top_two<double>(a_rows, cols), top_b = top_two<double>(b_rows, cols);
  const auto normalised = [&](const Rows& logits, const V max, double* column) {
    LongSum<V> sum{};
    each([&](int64_t j) {
      const V power = M::exp(logits.at(j) - max);
      sum.add(power);
      store(column + j, power);
    });
    const V all = Rows::sum(sum.total);
    each([&](int64_t j) { store(column + j, load(column + j) / all); });
    return max + M::log(all);
  };
  const V gap = normalised(b_rows, top_b.first, column_q) -
                normalised(a_rows, top_a.first, column_p);
  const auto delta_of = [&](int64_t j) {  // 0 at classes absent from both
    const V a = a_rows.at(j), b = b_rows.at(j);
    return ((a == none) & (b == none)) ? V{} : (b - a) - gap;
  };

  if constexpr (kSmoothed) {
    const int64_t k = top_a.index[0], r = top_b.index[0];
    const V ratio = broadcast(column_q[k] / column_p[k]);
    const V delta_k = b_rows.pick(top_a.index) - a_rows.pick(top_a.index);
    LongSum<V> sum{};
    each([&](int64_t j) {
      const V p = load(column_p + j), q = load(column_q + j);
      const V moved = moved_beside<M>(p, q, ratio, (b_rows.at(j) - a_rows.at(j)) - delta_k);
      sum.add(moved);
      store(column_a + j, q - p);
      store(column_b + j, moved);
    });
    const double x_k = -column_p[k] * Rows::sum(sum.total)[0];
    const SmoothedRow<double> known = {1, k, r, false, column_p[k], column_q[k], x_k};
    const SmoothedColumns<double> column = {column_p, column_q, column_a, column_b};
    const auto a_at = [&](int64_t j) { return a_rows.at(j); };
    const auto b_at = [&](int64_t j) { return b_rows.at(j); };
    smoothed_row<double, double, kSymmetric>(args, index, known, column, a_at, b_at);
    return;
  }

  LongSum<V> value{};
  each([&](int64_t j) {
    const V p = load(column_p + j), change = load(column_q + j) - p, u = delta_of(j);
    value.add(kSymmetric ? weigh(change, u) : change - weigh(p, u));
    store(column_a + j, -u);
    store(column_b + j, u);
  });
  if (args.value != nullptr) static_cast<double*>(args.value)[index] = Rows::sum(value.total)[0];

  // From h to the gradient, in place; `share` of c is in it.
  V peak{};
  const auto gradient = [&](double* h, const double* posterior, int64_t top, double share) {
    const double level = __builtin_isinf(h[top]) ? 0 : h[top];
    LongSum<V> sum{};
    each([&](int64_t j) {
      const V weighed = weigh(load(posterior + j), load(h + j) - level);
      sum.add(weighed);
      store(h + j, weighed);
    });
    const V mean = Rows::sum(sum.total);
    peak = V{};
    each([&](int64_t j) {
      const V change = load(column_q + j) - load(column_p + j);
      const V slope = load(h + j) - load(posterior + j) * mean + share * change;
      peak = larger(magnitude<double>(slope), peak);
      store(h + j, slope);
    });
  };
  if (args.grad_p != nullptr) gradient(column_a, column_p, top_a.index[0], kSymmetric ? -1 : 0);
  if (args.grad_q != nullptr) {
    if constexpr (!kSymmetric) each([&](int64_t j) { store(column_b + j, V{}); });
    gradient(column_b, column_q, top_b.index[0], 1);
  }
  write_gradients<double, double>(args, index, 1, lane_max<double>(peak)[0], column_b, column_a);
}

}  // namespace vaal::VAAL_ISA
