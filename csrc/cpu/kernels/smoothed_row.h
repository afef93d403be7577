// The value and the gradients of one smoothed row whose posteriors are known. The formulas are in
// csrc/math/smoothed_kl.h.
#pragma once

#include "cpu/kernels/gradient_output.h"
#include "math/smoothed_kl.h"

namespace vaal::VAAL_ISA {

// [cols] each, padded with zeros: the posteriors over σ, x, and moved_j of own = p. In the place of
// the last two the slopes H of q and p come to lie.
template <class S>
struct SmoothedColumns {
  S *p, *q, *x, *moved;
};

// What smoothed_row knows besides. Where k is argmax b too, σ may be so small that its posteriors over
// it are not numbers: then they are 0 in the columns and stand here alone.
template <class S>
struct SmoothedRow {
  S sigma;
  int64_t k, r;     // argmax a and argmax b, the same one where they tie
  bool apart;       // k is not in the columns
  S p_k, q_k, x_k;  // x_k over σ
};

// a_at(j) and b_at(j): a register of logits from class j on, −inf beyond the row. Returns the largest
// magnitude of ∂value/∂b over σ².
template <class T, class S, bool kSymmetric, class LogitsA, class LogitsB>
S smoothed_row(const KLArguments& args, int64_t index, const SmoothedRow<S>& row,
               const SmoothedColumns<S>& column, const LogitsA& a_at, const LogitsB& b_at) {
  using M = SimdMath<S>;
  using V = typename Register<S>::V;
  using Rows = Along<T, S>;
  constexpr int64_t kLanes = Register<S>::kLanes;
  const int64_t cols = args.cols, k = row.k, r = row.r;
  const V keep = broadcast<S>(S(1 - args.smoothing));
  const V floor = broadcast<S>(S(args.smoothing / cols));
  const V sigma = broadcast<S>(row.sigma);
  const auto one = [&](const auto& logits_at, int64_t j) {
    return broadcast<S>(S(logits_at(j / kLanes * kLanes)[j % kLanes]));
  };
  const V a_k = one(a_at, k), b_r = one(b_at, r);
  const V delta_r = b_r - one(a_at, r);
  const auto away = [&](int64_t j) {  // moved_j of own = q
    return moved_beside<M>(load(column.q + j), load(column.p + j),
                           broadcast<S>(column.p[r] / column.q[r]), delta_r - (b_at(j) - a_at(j)));
  };

  const auto p_peak_of = smoothed_class<M, kSymmetric>(
      sigma, broadcast<S>(row.p_k), broadcast<S>(row.q_k), broadcast<S>(row.x_k), keep, floor);
  const SmoothedPeak<V> p_peak = {p_peak_of.p, p_peak_of.q, p_peak_of.v,
                                  floor * broadcast<S>(row.x_k)};
  SmoothedPeak<V> q_peak = {p_peak_of.q, p_peak_of.p, -p_peak_of.v, -p_peak.lean};
  if (r != k) {
    LongSum<V> sum{};
    for (int64_t j = 0; j < cols; j += kLanes) sum.add(away(j));
    const V q_r = broadcast<S>(column.q[r]);
    const V change = -q_r * Rows::sum(sum.total);  // p_r − q_r, which no subtraction gives so well
    const auto peak = smoothed_class<M, kSymmetric>(sigma, broadcast<S>(column.p[r]), q_r, -change,
                                                    keep, floor);
    q_peak = {peak.q, peak.p, -peak.v, floor * change};
  }

  LongSum<V> terms{}, sum_q{}, sum_p{};
  for (int64_t j = 0; j < cols; j += kLanes) {
    const V p = load(column.p + j), q = load(column.q + j);
    const auto c = smoothed_class<M, kSymmetric>(sigma, sigma * p, sigma * q, load(column.x + j),
                                                 keep, floor);
    terms.add(c.value);  // 0 at classes absent from both
    const V E_p = mixed_beside(p_peak, load(column.moved + j), M::expm1(a_at(j) - a_k));
    const V E_q = r == k ? -E_p : mixed_beside(q_peak, away(j), M::expm1(b_at(j) - b_r));
    const V slope_q = smoothed_slope<M, kSymmetric, false>(q_peak, sigma, c.q, c.p, -c.v, E_q,
                                                           keep);
    const V slope_p = smoothed_slope<M, kSymmetric, true>(p_peak, sigma, c.p, c.q, c.v, E_p, keep);
    sum_q.add(weigh(q, slope_q));
    sum_p.add(weigh(p, slope_p));
    store(column.x + j, slope_q);
    store(column.moved + j, slope_p);
  }
  V value = Rows::sum(terms.total);
  if (row.apart) value += p_peak_of.value;
  if (args.value != nullptr) static_cast<S*>(args.value)[index] = value[0];
  if (args.grad_q == nullptr && args.grad_p == nullptr) return 0;

  // The gradients over σ², in the place of the slopes. That of k is what all others leave.
  const V mean_q = Rows::sum(sum_q.total), mean_p = Rows::sum(sum_p.total);
  V peak{};
  for (int64_t j = 0; j < cols; j += kLanes) {
    const auto is_k = Rows::index(j) == typename Register<S>::Lane(k);
    const V q = load(column.q + j), p = load(column.p + j);
    V grad_q = keep * weigh(q, load(column.x + j) - sigma * mean_q);
    V grad_p = keep * weigh(p, load(column.moved + j) - sigma * mean_p);
    if (row.apart) {
      grad_q = is_k ? -keep * broadcast<S>(row.q_k) * mean_q : grad_q;
      grad_p = is_k ? -keep * broadcast<S>(row.p_k) * mean_p : grad_p;
    }
    peak = larger(magnitude<S>(grad_q), peak);
    store(column.x + j, grad_q);
    store(column.moved + j, grad_p);
  }
  const S largest = lane_max<S>(peak)[0];
  write_gradients<T, S>(args, index, row.sigma * row.sigma, largest, column.x, column.moved);
  return largest;
}

}  // namespace vaal::VAAL_ISA
