// symmetric_kl, its backward and symmetric_kl_direction: one pass structure over rows of logits.
//
//   p, q [rows, cols] logits a, b          value [rows]          grad_p, grad_q [rows, cols]
//
// Pass 1 finds the pivot, pass 2 the sums, pass 3 the value and the gradient; pass 4 scales the
// gradient, by its peak or what comes from upstream, and writes it. w, d and δ stay in scratch
// between the passes, then the gradient in their place: two exponentials an element in all. The
// formulas are in csrc/math/plain_kl.h, which serve every row but the rare ones that guarded_row.h is
// for. Those feel, too, that the padding of a row (kUnseen) moves by the roundings of its logits: a row
// of one class has nothing else to show.

#include "cpu/kernels/guarded_row.h"
#include "math/plain_kl.h"

namespace vaal::VAAL_ISA {
namespace {

// w = e^α and d = e^α·expm1(δ), two exponentials. Below the range of normal numbers α is clamped.
template <class V>
struct PlainTerm {
  V w, d;
};

template <class M, class V>
VAAL_HD PlainTerm<V> plain_term(V alpha, V delta) {
  using S = typename M::Scalar;
  const V w = M::exp_of_normal(larger(broadcast<S>(M::kMinExponent), alpha));
  return {w, w * M::expm1_of_normal(delta)};
}

// By at most this, over ulp, are the sums wrong for that where no logit moved farther than `reach`:
// every class with δ = reach and the weight e^(kMinExponent + reach).
template <class M, class V>
VAAL_HD V clamped_weight(V reach, int64_t cols) {
  using S = typename M::Scalar;
  const V exponent = reach + (M::kMinExponent + kDigits<S>);
  return M::exp_of_normal(larger(broadcast<S>(M::kMinExponent), exponent)) * reach * S(cols);
}

// Rows::kRows rows from `first` on. Returns which lanes (rows) must be done again by guarded_row:
// saturated ones, ones with a logit that moved far, ones that became so, and all with −inf or NaN.
template <class T, class S, class Rows, bool kSymmetric, bool kNeedQ, bool kNeedP>
typename Register<S>::I plain_rows(const KLArguments& args, int64_t first, int64_t last,
                                   S* scratch) {
  using M = SimdMath<S>;
  using V = typename Register<S>::V;
  constexpr int64_t kLanes = Register<S>::kLanes;
  const int64_t cols = args.cols;
  const int64_t length = padded_length<S, Rows>(cols);
  // Across packs a where w will lie, and b where d will: a step reads its classes before it writes.
  S* const column_w = scratch;
  S* const column_d = column_w + length;
  S* const column_delta = column_d + length;
  Rows a_rows(static_cast<const T*>(args.p), first, last, cols, S(0), column_w);
  Rows b_rows(static_cast<const T*>(args.q), first, last, cols, S(0), column_d);

  V a_k, b_k;
  Rows::pivot(a_rows, b_rows, a_k, b_k);
  const V shift = b_k - a_k;
  LongSum<V> sum_w{}, sum_d{}, sum_v_delta{}, sum_w_delta{};
  V block_w{}, block_d{}, block_v_delta{}, block_w_delta{}, largest_delta{};
  each_step<S, Rows>(cols, [&](int64_t j, int64_t at, auto whole) __attribute__((always_inline)) {
    const V a = a_rows.template at<whole()>(j), b = b_rows.template at<whole()>(j);
    a_rows.ask_ahead(j);
    b_rows.ask_ahead(j);
    const V alpha = a - a_k, delta = (b - a) - shift;
    largest_delta = larger(magnitude<S>(delta), largest_delta);
    const auto term = plain_term<M>(alpha, delta);
    block_w += term.w;
    block_d += term.d;
    if constexpr (kNeedQ && kSymmetric) block_v_delta += (term.w + term.d) * delta;
    if constexpr (kNeedP) block_w_delta += term.w * delta;
    store(column_w + at, term.w);
    store(column_d + at, term.d);
    store(column_delta + at, delta);
  }, [&]() __attribute__((always_inline)) {
    sum_w.take(block_w);
    sum_d.take(block_d);
    if constexpr (kNeedQ && kSymmetric) sum_v_delta.take(block_v_delta);
    if constexpr (kNeedP) sum_w_delta.take(block_w_delta);
  });
  const auto row = plain_row<M>(Rows::sum(sum_w.total), Rows::sum(sum_d.total),
                                Rows::sum(sum_v_delta.total), Rows::sum(sum_w_delta.total));

  LongSum<V> sum_value{};
  V block_value{}, peak{};
  each_step<S, Rows>(cols, [&](int64_t, int64_t at, auto) __attribute__((always_inline)) {
    const V w = load(column_w + at), d = load(column_d + at), delta = load(column_delta + at);
    const V x = posterior_change(row, w, d);
    block_value += value_term<M, kSymmetric, false>(row, w, x, delta - row.log_ratio);
    if constexpr (kNeedQ) {
      const V grad = grad_q_term<kSymmetric, false>(row, w + d, x, delta);
      peak = larger(magnitude<S>(grad), peak);
      store(column_w + at, grad);
    }
    if constexpr (kNeedP) {
      const V grad = grad_p_term<kSymmetric, false>(row, w, x, delta);
      peak = larger(magnitude<S>(grad), peak);
      store(column_d + at, grad);
    }
  }, [&]() __attribute__((always_inline)) { sum_value.take(block_value); });
  const V value = Rows::sum(sum_value.total);
  if (args.value != nullptr) Rows::write_row(static_cast<S*>(args.value), first, last, value);
  const V reach = Rows::max(largest_delta), unsure = kTiny<S> + clamped_weight<M>(reach, cols);
  auto good = (value > unsure) & (row.t < S(kFar)) & (row.t > S(kFallen)) & (reach < kReach<S>);
  if constexpr (kNeedQ || kNeedP) {
    peak = Rows::max(peak);
    good = good & (peak > unsure);
    V factor = broadcast<S>(S(1));
    if (args.direction) {
      factor = 1 / peak;
    } else if (args.grad_value != nullptr) {
      const S* upstream = static_cast<const S*>(args.grad_value);
      S given[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t at = Rows::kRows == 1 ? first : first + lane < last ? first + lane : last - 1;
        given[lane] = upstream[at * args.grad_value_stride];
      }
      factor = load(given);
    }
    if constexpr (kNeedQ)
      Rows::write(static_cast<T*>(args.grad_q), first, last, cols, column_w, factor);
    if constexpr (kNeedP)
      Rows::write(static_cast<T*>(args.grad_p), first, last, cols, column_d, factor);
  }
  return ~good;
}

template <class T, class S, class Rows>
void run_layout(const KLArguments& args, int64_t begin, int64_t end) {
  const int64_t plain = 3 * padded_length<S, Rows>(args.cols);
  const int64_t guarded = 4 * padded_length<S, Along<T, S>>(args.cols);
  Scratch<S> scratch(plain > guarded ? plain : guarded);
  const auto all = [&](auto symmetric, auto need_q, auto need_p) {
    for (int64_t first = begin; first < end; first += Rows::kRows) {
      const auto bad = plain_rows<T, S, Rows, symmetric(), need_q(), need_p()>(args, first, end,
                                                                               scratch.data);
      typename Register<S>::Lane again[Register<S>::kLanes];
      memcpy(again, &bad, sizeof(bad));
      for (int lane = 0; lane < Rows::kRows && first + lane < end; ++lane)
        if (again[lane]) guarded_row<T, S, symmetric(), false>(args, first + lane, scratch.data);
    }
  };
  const auto with_gradients = [&](auto symmetric) {
    if (args.grad_p && args.grad_q) all(symmetric, Yes{}, Yes{});
    else if (args.grad_p) all(symmetric, No{}, Yes{});
    else if (args.grad_q) all(symmetric, Yes{}, No{});
    else all(symmetric, No{}, No{});
  };
  if (args.smoothing > 0) {
    for (int64_t row = begin; row < end; ++row)
      args.symmetric ? guarded_row<T, S, true, true>(args, row, scratch.data)
                     : guarded_row<T, S, false, true>(args, row, scratch.data);
  } else {
    args.symmetric ? with_gradients(Yes{}) : with_gradients(No{});
  }
}

template <class T, class S>
void run(const KLArguments& args, int64_t begin, int64_t end) {
  across_pays<S>(args.cols, args.rows) ? run_layout<T, S, Across<T, S>>(args, begin, end)
                                       : run_layout<T, S, Along<T, S>>(args, begin, end);
}

}  // namespace

void symmetric_kl(const KLArguments& args, int64_t begin, int64_t end) {
  VAAL_DISPATCH_STORAGE(args.storage, run, args, begin, end);
}

}  // namespace vaal::VAAL_ISA
