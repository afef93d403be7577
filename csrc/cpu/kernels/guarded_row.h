// One row of symmetric_kl for any input: saturated to any degree, −inf, NaN, smoothed, or with an
// argmax that moved far. symmetric_kl.cpp comes here with the rows that its plain path cannot do.

#pragma once

#include "cpu/kernels/smoothed_row.h"
#include "cpu/kernels/wide_row.h"

namespace vaal::VAAL_ISA {

// Beyond this the argmax has moved so far that it is a row for wide_row.h.
constexpr double kWideShift = 30.0;

template <bool kSymmetric, bool kSmoothed>
void guarded_in_double(const KLArguments& args);

// scratch: four columns.
template <class T, class S, bool kSymmetric, bool kSmoothed>
void guarded_row(const KLArguments& args, int64_t index, S* scratch) {
  using M = SimdMath<S>;
  using V = typename Register<S>::V;
  using Rows = Along<T, S>;
  constexpr int64_t kLanes = Register<S>::kLanes;
  constexpr bool kFloat = sizeof(S) == 4;
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
  // The same row in double, where what lies far below the rest has a place beside it.
  const auto again = [&]() {
    if constexpr (kFloat) in_double<T, S>(args, index, guarded_in_double<kSymmetric, kSmoothed>);
    else wide_row<kSymmetric, kSmoothed>(args, index);
  };
  if (m[0] > S(kWideShift)) return again();
  m = m == none ? V{} : m;  // C = 1, or nothing besides the pivot

  // Pass 2: the sums over j ≠ k. A pivot that is not finite makes the row NaN.
  const V not_finite = (a_k - a_k) + (b_k - b_k);
  LongSum<V> sum_w{}, sum_v{not_finite, V{}}, sum_d{not_finite, V{}}, sum_v_delta{}, sum_w_delta{};
  V largest_delta{}, deepest{};
  for (int64_t j = 0; j < cols; j += kLanes) {
    const V a = a_rows.at(j), b = b_rows.at(j);
    const auto idle = (Rows::index(j) == k) | ((a == none) & (b == none));
    const V delta = idle ? V{} : (b - a) - (b_k - a_k);
    const V alpha = a - a_k;
    const auto term = pivot_term<M>(idle ? none : alpha - m, idle ? none : (b - b_k) - m, delta);
    largest_delta = larger(magnitude<S>(delta), largest_delta);
    deepest = larger((idle | (alpha < M::kMinExponent)) ? V{} : -alpha, deepest);
    sum_w.add(term.w);
    sum_v.add(term.v());
    sum_d.add(term.d());
    sum_v_delta.add(weigh(term.v(), delta));
    sum_w_delta.add(weigh(term.w, delta));
    store(column_w + j, term.w);
    store(column_held + j, term.held);
    store(column_delta + j, delta);
  }
  // Where m > 0 a class of `a` may have left the range of w, though not that of p and of ∂/∂a.
  if (args.grad_p != nullptr && m[0] > 1 && lane_max<S>(deepest)[0] + m[0] > -M::kMinExponent)
    return again();
  const auto row = pivot_row<M>(m, Rows::sum(sum_w.total), Rows::sum(sum_v.total),
                                Rows::sum(sum_d.total), Rows::sum(sum_v_delta.total),
                                Rows::sum(sum_w_delta.total));
  // A direction that consists of classes so far below the runner-up that float has no digits for it.
  const auto too_low = [&](S peak) {
    return kFloat && args.direction && peak < S(1e-30) && lane_max<S>(largest_delta)[0] > 0;
  };
  const auto term_at = [&](int64_t j) {
    return PivotTerm<V>{load(column_w + j), load(column_held + j), load(column_delta + j)};
  };
  const auto change_of = [&](const PivotTerm<V>& c) {
    return posterior_change(row, c.w, c.v(), c.d());
  };

  if constexpr (kSmoothed) {
    // From w, v and δ to the posteriors over σ. Where m > 0 they need no scale, and the pivot, which is
    // not the largest of b then, is a class like the others.
    const bool apart = !(top_b.first[0] > b_k[0]);
    const V up = m[0] > 0 ? row.scale : broadcast<S>(S(1)), x_k = up * row.x_pivot;
    const SmoothedColumns<S> column = {column_w, column_held, column_delta, column_delta + length};
    for (int64_t j = 0; j < cols; j += kLanes) {
      const auto c = term_at(j);
      const auto set_in = (Rows::index(j) == k) & (apart ? 0 : -1);
      const V p = up * c.w * row.inv_z, q = up * c.v() * row.inv_zq;
      store(column.p + j, set_in ? row.inv_z : p);
      store(column.q + j, set_in ? row.inv_zq : q);
      store(column.x + j, set_in ? x_k : up * change_of(c));
      store(column.moved + j, up * c.d() * row.inv_zq);
    }
    const int64_t first = k[0], best = apart ? first : int64_t(top_b.index[0]);
    const S sigma = m[0] > 0 ? S(1) : row.scale[0];
    const SmoothedRow<S> known = {sigma, first, best, apart, row.inv_z[0], row.inv_zq[0], x_k[0]};
    const auto a_at = [&](int64_t j) { return a_rows.at(j); };
    const auto b_at = [&](int64_t j) { return b_rows.at(j); };
    const S peak = smoothed_row<T, S, kSymmetric>(args, index, known, column, a_at, b_at);
    if (too_low(peak)) again();
    return;
  }

  // Pass 3: the value.
  LongSum<V> terms{};  // over e^m
  for (int64_t j = 0; j < cols; j += kLanes) {
    const auto c = term_at(j);
    terms.add(value_term<M, kSymmetric>(row, c.w, change_of(c), c.delta - row.log_ratio));
  }
  const V value = row.scale * (Rows::sum(terms.total) + value_pivot<M, kSymmetric>(row));
  if (args.value != nullptr) static_cast<S*>(args.value)[index] = value[0];
  if (args.grad_q == nullptr && args.grad_p == nullptr) return;

  // Pass 4: the gradients, in the place of w and `held`, scaled as they are written.
  V peak{};
  for (int64_t j = 0; j < cols; j += kLanes) {
    const auto c = term_at(j);
    const auto is_pivot = Rows::index(j) == k;
    const V x = change_of(c);
    const V grad_q = is_pivot ? grad_q_pivot<kSymmetric>(row)
                              : grad_q_term<kSymmetric>(row, c.v(), x, c.delta);
    peak = larger(magnitude<S>(grad_q), peak);
    store(column_w + j, grad_q);
    store(column_held + j,
          is_pivot ? grad_p_pivot<kSymmetric>(row) : grad_p_term<kSymmetric>(row, c.w, x, c.delta));
  }
  const S largest = lane_max<S>(peak)[0];
  if (too_low(largest)) return again();
  write_gradients<T, S>(args, index, row.scale[0], largest, column_w, column_held);
}

template <bool kSymmetric, bool kSmoothed>
void guarded_in_double(const KLArguments& args) {
  Scratch<double> scratch(4 * padded_length<double, Along<double, double>>(args.cols));
  guarded_row<double, double, kSymmetric, kSmoothed>(args, 0, scratch.data);
}

}  // namespace vaal::VAAL_ISA
