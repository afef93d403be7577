// One row of symmetric_kl whose argmax moved so far that the pivot's posterior vanishes beside the
// others. J is then of order one and more, and the two log-posteriors can be subtracted directly; in
// double whatever the storage, for the gradient in p may be small all the same.

#pragma once

#include "kernels.h"
#include "rows.h"

namespace vaal::VAAL_ISA {

// With p̃ = (1 − s)p + s/C and q̃ likewise (s = 0: p̃ = p), u = log q̃ − log p̃ and c = q̃ − p̃:
//
//   symmetric   value Σ c u         g_p = −p u − (p/p̃) c    g_q = q u + (q/q̃) c
//   forward     value Σ c − p̃ u     g_p = −p u              g_q = (q/q̃) c
//
//   ∂value/∂a_j = (1 − s)(g_p,j − p_j Σ g_p)    ∂value/∂b_j = (1 − s)(g_q,j − q_j Σ g_q)
template <class T, class S>
void wide_row(const KLArguments& args, int64_t index, S* scratch) {
  using M = SimdMath<double>;
  using V = M::V;
  constexpr int64_t kLanes = Register<double>::kLanes;
  constexpr double kNone = -__builtin_inf();
  const int64_t cols = args.cols;
  const int64_t length = padded_length<S, Along<T, S>>(cols);
  Scratch<double> columns(4 * length);
  double *const column_a = columns.data, *const column_b = column_a + length;
  double *const column_p = column_b + length, *const column_q = column_p + length;
  const auto each = [&](auto body) {
    for (int64_t j = 0; j < length; j += kLanes) body(j);
  };

  // Beyond the row: classes absent from both.
  const auto widened = [&](const void* logits, double* column) {
    const Along<T, S> row(static_cast<const T*>(logits), index, index + 1, cols, S(kNone), nullptr);
    for (int64_t j = 0; j < length; j += Register<S>::kLanes) {
      const auto loaded = row.at(j);
      for (int lane = 0; lane < Register<S>::kLanes; ++lane) column[j + lane] = loaded[lane];
    }
  };
  widened(args.p, column_a);
  widened(args.q, column_b);
  // e^(logit − max) into `posterior`, the logit less max + log Σ in place; returns 1/Σ.
  const auto normalised = [&](double* logit, double* posterior) {
    V max = broadcast(kNone), sum{};
    each([&](int64_t j) { max = larger(load(logit + j), max); });
    max = lane_max<double>(max);
    each([&](int64_t j) {
      const V power = M::exp(load(logit + j) - max);
      sum += power;
      store(posterior + j, power);
    });
    sum = lane_sum<double>(sum);
    const V log_sum = max + M::log(sum);
    each([&](int64_t j) { store(logit + j, load(logit + j) - log_sum); });
    return 1 / sum;
  };
  const V over_a = normalised(column_a, column_p), over_b = normalised(column_b, column_q);

  const double keep = 1 - args.smoothing, floor = args.smoothing / cols;
  V value{}, sum_p{}, sum_q{};
  each([&](int64_t j) {
    const V log_p = load(column_a + j), log_q = load(column_b + j);
    const V p = load(column_p + j) * over_a, q = load(column_q + j) * over_b;
    const V p_mixed = keep * p + floor, q_mixed = keep * q + floor;
    const V u = args.smoothing > 0 ? M::log(q_mixed / p_mixed) : log_q - log_p;
    const V change = q_mixed - p_mixed;
    const V change_p = p_mixed == 0 ? change : p / p_mixed * change;
    const V change_q = q_mixed == 0 ? change : q / q_mixed * change;
    const V pu = weigh(p, u), qu = weigh(q, u);
    const V term = args.symmetric ? change * u : change - weigh(p_mixed, u);
    const V gain_p = args.symmetric ? -pu - change_p : -pu;
    const V gain_q = args.symmetric ? qu + change_q : change_q;
    const auto absent = (p_mixed == 0) & (q_mixed == 0);
    value += absent ? V{} : term;
    sum_p += absent ? V{} : gain_p;
    sum_q += absent ? V{} : gain_q;
    store(column_p + j, p);
    store(column_q + j, q);
    store(column_a + j, absent ? V{} : gain_p);
    store(column_b + j, absent ? V{} : gain_q);
  });
  if (args.value != nullptr)
    static_cast<S*>(args.value)[index] = S(lane_sum<double>(value)[0]);

  const auto gradient = [&](double* gain, const double* posterior, V sum) {
    V peak{};
    sum = lane_sum<double>(sum);
    each([&](int64_t j) {
      const V slope = keep * (load(gain + j) - load(posterior + j) * sum);
      peak = larger(magnitude<double>(slope), peak);
      store(gain + j, slope);
    });
    return lane_max<double>(peak)[0];
  };
  const auto write = [&](void* out, const double* slopes, double factor) {
    for (int64_t j = 0; j < length; ++j) scratch[j] = S(slopes[j] * factor);
    Along<T, S>::write(static_cast<T*>(out), index, index + 1, cols, scratch, broadcast(S(1)));
  };
  const S* upstream = static_cast<const S*>(args.grad_value);
  double factor = upstream ? upstream[index * args.grad_value_stride] : 1;
  if (args.grad_q != nullptr) {
    const double peak = gradient(column_b, column_q, sum_q);
    if (args.direction) factor = peak == 0 ? 0 : 1 / peak;
    write(args.grad_q, column_b, factor);
  }
  if (args.grad_p != nullptr) {
    gradient(column_a, column_p, sum_p);
    write(args.grad_p, column_a, factor);
  }
}

}  // namespace vaal::VAAL_ISA
