// One row of symmetric_kl for any input: saturated to any degree, −inf, NaN, smoothed, or with an
// argmax that moved far. symmetric_kl.cpp comes here with the rows that its plain path cannot do.

#pragma once

#include "../math/smoothed_kl.h"
#include "wide_row.h"

namespace vaal::VAAL_ISA {

// Beyond this the argmax has moved so far that it is a row for wide_row.h.
constexpr double kWideShift = 30.0;

// What multiplies a row's gradient (given over e^m, or over e^2m when smoothed): the upstream
// gradient, or 1/peak in two factors. A peak near the bottom of the range is lifted first, so that
// its reciprocal stays finite.
template <class S>
struct GradientFactor {
  S lift, factor;
};

template <class S>
GradientFactor<S> gradient_factor(const KLArguments& args, int64_t row, S scale, S peak) {
  if (args.direction) {
    const S lift = peak < S(1e-36) ? S(0x1p120) : peak < S(1e-30) ? S(0x1p60) : S(1);
    return {lift, peak == 0 ? S(0) : 1 / (peak * lift)};
  }
  const S* upstream = static_cast<const S*>(args.grad_value);
  return {S(1), upstream ? scale * upstream[row * args.grad_value_stride] : scale};
}

template <class T, class S, bool kSymmetric, bool kSmoothed>
void guarded_row(const KLArguments& args, int64_t index, S* scratch) {
  using M = SimdMath<S>;
  using V = typename Register<S>::V;
  using Rows = Along<T, S>;
  constexpr int64_t kLanes = Register<S>::kLanes;
  const int64_t cols = args.cols;
  const int64_t length = padded_length<S, Rows>(cols);
  S* const column_w = scratch;
  S* const column_held = column_w + length;
  S* const column_delta = column_held + length;
  const V none = broadcast<S>(S(-__builtin_inf()));
  const S fill = -__builtin_inf();  // beyond the row: a class absent from both
  const Rows a_rows(static_cast<const T*>(args.p), index, index + 1, cols, fill, nullptr);
  const Rows b_rows(static_cast<const T*>(args.q), index, index + 1, cols, fill, nullptr);

  // Pass 1: the pivot, and m from the runners-up.
  const TopTwo<S> top_a = top_two<S>(a_rows, cols), top_b = top_two<S>(b_rows, cols);
  const auto k = top_a.index;
  const V a_k = a_rows.pick(k), b_k = b_rows.pick(k);
  const V best_b = top_b.first == b_k ? top_b.second : top_b.first;  // over j ≠ k
  V m = larger(top_a.second - a_k, best_b - b_k);
  if (m[0] > S(kWideShift)) return wide_row<T, S>(args, index, scratch);
  m = m == none ? V{} : m;  // C = 1, or nothing besides the pivot

  // Pass 2: the sums over j ≠ k. A pivot that is not finite makes the row NaN.
  const V not_finite = (a_k - a_k) + (b_k - b_k);
  LongSum<V> sum_w{}, sum_v{not_finite, V{}}, sum_d{not_finite, V{}}, sum_v_delta{}, sum_w_delta{};
  for (int64_t j = 0; j < cols; j += kLanes) {
    const V a = a_rows.at(j), b = b_rows.at(j);
    const auto idle = (Rows::index(j) == k) | ((a == none) & (b == none));
    const V delta = idle ? V{} : (b - a) - (b_k - a_k);
    const auto term = pivot_term<M>(idle ? none : (a - a_k) - m, idle ? none : (b - b_k) - m, delta);
    sum_w.add(term.w);
    sum_v.add(term.v());
    sum_d.add(term.d());
    sum_v_delta.add(weigh(term.v(), delta));
    sum_w_delta.add(weigh(term.w, delta));
    store(column_w + j, term.w);
    store(column_held + j, term.held);
    store(column_delta + j, delta);
  }
  const V R = Rows::sum(sum_w.total), sum_of_v = Rows::sum(sum_v.total);
  const auto row = pivot_row<M>(m, R, sum_of_v, Rows::sum(sum_d.total),
                                Rows::sum(sum_v_delta.total), Rows::sum(sum_w_delta.total));
  using Term = PivotTerm<V>;
  const auto term_at = [&](int64_t j) {
    return Term{load(column_w + j), load(column_held + j), load(column_delta + j)};
  };
  const auto change_of = [&](const Term& c) { return posterior_change(row, c.w, c.v(), c.d()); };

  // Pass 3: the value, and the sums that the gradient needs besides.
  const V keep = broadcast<S>(S(1 - args.smoothing)), floor = broadcast<S>(S(args.smoothing / cols));
  const auto smoothed_at = [&](const Term& c) {
    return smoothed_term<M, kSymmetric>(row.scale, row.scale * c.w * row.inv_z,
                                        row.scale * c.v() * row.inv_zq, change_of(c), keep, floor);
  };
  // Σ q_i h_i is almost h of the largest q alone: h_q is measured from there, so that h − Σ q h does
  // not cancel. (For p that class is the pivot, whose gradient is summed up in a form of its own.)
  V level{};
  if constexpr (kSmoothed) {
    const auto best = top_b.index[0];
    if (best != k[0])
      level = smoothed_at(Term{broadcast(column_w[best]), broadcast(column_held[best]),
                               broadcast(column_delta[best])}).h_q;
  }
  const auto smoothed_of = [&](const Term& c) {
    auto smoothed = smoothed_at(c);
    smoothed.h_q -= level;
    return smoothed;
  };
  LongSum<V> terms{}, qh{}, ph{};  // terms: of the value, over e^m unless smoothed
  for (int64_t j = 0; j < cols; j += kLanes) {
    const Term c = term_at(j);
    if constexpr (kSmoothed) {
      const auto smoothed = smoothed_of(c);
      terms.add(smoothed.value);  // 0 at the pivot and at absent classes, where w = d = 0
      qh.add(weigh(c.v(), smoothed.h_q));
      ph.add(weigh(c.w, smoothed.h_p));
    } else {
      terms.add(value_term<M, kSymmetric>(row, c.w, change_of(c), c.delta - row.log_ratio));
    }
  }
  V value = Rows::sum(terms.total), mean_qh{}, mean_ph{}, pivot_q, pivot_p;
  if constexpr (kSmoothed) {
    auto pivot = smoothed_term<M, kSymmetric>(row.scale, row.inv_z, row.inv_zq, row.x_pivot, keep,
                                              floor);
    pivot.h_q -= level;
    const V sum_qh = Rows::sum(qh.total) * row.inv_zq, sum_ph = Rows::sum(ph.total) * row.inv_z;
    value += pivot.value;
    mean_qh = row.inv_zq * pivot.h_q + row.scale * sum_qh;
    mean_ph = row.inv_z * pivot.h_p + row.scale * sum_ph;
    pivot_q = keep * row.inv_zq * (sum_of_v * row.inv_zq * pivot.h_q - sum_qh);
    pivot_p = keep * row.inv_z * (R * row.inv_z * pivot.h_p - sum_ph);
  } else {
    value = row.scale * (value + value_pivot<M, kSymmetric>(row));
    pivot_q = grad_q_pivot<kSymmetric>(row);
    pivot_p = grad_p_pivot<kSymmetric>(row);
  }
  if (args.value != nullptr) static_cast<S*>(args.value)[index] = value[0];
  if (args.grad_q == nullptr && args.grad_p == nullptr) return;

  // Pass 4: the gradients, in the place of w and `held`. Pass 5: scaled and written.
  V peak{};
  for (int64_t j = 0; j < cols; j += kLanes) {
    const Term c = term_at(j);
    const auto is_pivot = Rows::index(j) == k;
    V grad_q, grad_p;
    if constexpr (kSmoothed) {
      const auto smoothed = smoothed_of(c);
      grad_q = keep * weigh(c.v() * row.inv_zq, smoothed.h_q - mean_qh);
      grad_p = keep * weigh(c.w * row.inv_z, smoothed.h_p - mean_ph);
    } else {
      const V x = change_of(c);
      grad_q = grad_q_term<kSymmetric>(row, c.v(), x, c.delta);
      grad_p = grad_p_term<kSymmetric>(row, c.w, x, c.delta);
    }
    grad_q = is_pivot ? pivot_q : grad_q;
    peak = larger(magnitude<S>(grad_q), peak);
    store(column_w + j, grad_q);
    store(column_held + j, is_pivot ? pivot_p : grad_p);
  }
  const S scale = kSmoothed ? row.scale[0] * row.scale[0] : row.scale[0];
  const auto scaled = gradient_factor<S>(args, index, scale, lane_max<S>(peak)[0]);
  const auto write = [&](void* out, S* column) {
    for (int64_t j = 0; j < cols; j += kLanes) store(column + j, load(column + j) * scaled.lift);
    Rows::write(static_cast<T*>(out), index, index + 1, cols, column, broadcast<S>(scaled.factor));
  };
  if (args.grad_q != nullptr) write(args.grad_q, column_w);
  if (args.grad_p != nullptr) write(args.grad_p, column_held);
}

}  // namespace vaal::VAAL_ISA
