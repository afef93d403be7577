// fisher_direction: the top eigenvector of the Fisher matrix of softmax rows, and its eigenvalue.
//
//   logits [rows, cols] a          out [rows, cols] v, row maximum 1          curvature [rows] λ
//
// Pass 1 finds the pivot and the runner-up, pass 2 the weights w and distances D, which stay in
// scratch, and their sums; every Newton step is a pass over these with one division an element. The
// formulas are in csrc/math/fisher_direction.h.

#include "math/fisher_direction.h"

#include "cpu/kernels.h"
#include "cpu/kernels/rows.h"

namespace vaal::VAAL_ISA {
namespace {

template <class T, class S, class Rows>
void directions(const DirectionArguments& args, int64_t begin, int64_t end) {
  using M = SimdMath<S>;
  using V = typename Register<S>::V;
  const int64_t cols = args.cols;
  const int64_t length = padded_length<S, Rows>(cols);
  Scratch<S> scratch(2 * length);
  S* const column_w = scratch.data;
  S* const column_d = column_w + length;
  const V none = broadcast<S>(S(-__builtin_inf())), one = broadcast<S>(S(1));
  for (int64_t first = begin; first < end; first += Rows::kRows) {
    // Across packs a where w will lie: a step reads its class before it writes. Beyond the row lies a
    // class that is ruled out.
    const Rows rows(static_cast<const T*>(args.logits), first, end, cols, none[0], column_w);
    const TopTwo<S> top = top_two<S>(rows, cols);
    const auto k = top.index;
    const V a_k = top.first;
    const auto alone = top.second == none;  // C = 1, or nothing besides the pivot
    const V a_r = alone ? a_k : top.second;
    const V m = a_r - a_k;
    const V e = M::exp(m), h = -M::expm1(m), inverse_h = inverse_gap<S>(h);

    // What is not finite makes the row NaN.
    LongSum<V> sum_w{a_k - a_k, V{}}, sum_wd{};
    V block_w{}, block_wd{};
    each_step<S, Rows>(cols, [&](int64_t j, int64_t at, auto) __attribute__((always_inline)) {
      const V a = rows.at(j), x = a - a_r;
      const auto idle = (Rows::index(j) == k) | (a == none);
      // 1 − w and w, whichever is small from its own series.
      const auto far = x < S(-0.69);
      const V power = M::exp_or_expm1(far, x, x);
      const V w = idle ? V{} : (far ? power : 1 + power);
      const V d = idle ? one : (far ? 1 - power : -power) * inverse_h;
      block_w += w;
      block_wd += w * d;
      store(column_w + at, w);
      store(column_d + at, d);
    }, [&]() __attribute__((always_inline)) {
      sum_w.take(block_w);
      sum_wd.take(block_wd);
    });
    const V R = Rows::sum(sum_w.total);

    V sigma = first_root<V>(e, R, Rows::sum(sum_wd.total));
    auto there = alone | (sigma != sigma);
    for (int step = 0; step < kMostSteps && any_lane(~there); ++step) {
      LongSum<V> sum_s{}, sum_t{};
      V block_s{}, block_t{};
      each_step<S, Rows>(cols, [&](int64_t, int64_t at, auto) __attribute__((always_inline)) {
        const V share = 1 / (sigma + load(column_d + at)), s = load(column_w + at) * share;
        block_s += s;
        block_t += s * share;
      }, [&]() __attribute__((always_inline)) {
        sum_s.take(block_s);
        sum_t.take(block_t);
      });
      const V next = next_root<V>(e, sigma, Rows::sum(sum_s.total), Rows::sum(sum_t.total));
      const auto short_step = !(next - sigma > kLastStep<S> * sigma);
      // A row that is there stays: its result is not to depend on the rows beside it.
      sigma = there ? sigma : next;
      there |= short_step;
    }

    LongSum<V> sum_v{};
    V block_v{};
    each_step<S, Rows>(cols, [&](int64_t, int64_t at, auto) __attribute__((always_inline)) {
      const V entry = load(column_w + at) / (sigma + load(column_d + at));
      block_v += entry;
      store(column_w + at, entry);
    }, [&]() __attribute__((always_inline)) { sum_v.take(block_v); });
    const V all = Rows::sum(sum_v.total);
    const V nothing = R - R;  // 0, or NaN
    T* const out = static_cast<T*>(args.out);
    Rows::write(out, first, end, cols, column_w, alone ? nothing : 1 / all);
    // The pivot's own entry is Σ v, turned round: -1 to the bit.
    const V pivot = alone ? nothing : (all - all) - 1;
    for (int lane = 0; lane < Rows::kRows && first + lane < end; ++lane)
      store_some<S>(out + (first + lane) * cols + k[lane], broadcast<S>(pivot[lane]), 1);
    const V curvature = alone ? nothing : e / (1 + e * R) * (1 + h * sigma);
    Rows::write_row(static_cast<S*>(args.curvature), first, end, curvature);
  }
}

template <class T, class S>
void run(const DirectionArguments& args, int64_t begin, int64_t end) {
  across_pays<S>(args.cols, args.rows) ? directions<T, S, Across<T, S>>(args, begin, end)
                                       : directions<T, S, Along<T, S>>(args, begin, end);
}

}  // namespace

void fisher_direction(const DirectionArguments& args, int64_t begin, int64_t end) {
  VAAL_DISPATCH_STORAGE(args.storage, run, args, begin, end);
}

}  // namespace vaal::VAAL_ISA
