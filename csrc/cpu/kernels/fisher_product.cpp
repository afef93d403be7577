// fisher_product: F·v of softmax rows, each row scaled to unit maximum, in three passes.
//
//   logits, tangents [rows, cols] a, v          out [rows, cols]
//
// Pass 1 finds the pivot, the runner-up and max|v|, pass 2 the sums, pass 3 the entries and their
// peak; they are scaled as they are written. w and t stay in scratch between the passes, then the
// entries in their place: one exponential an element. The formulas are in csrc/math/fisher.h.

#include "math/fisher.h"

#include "cpu/kernels.h"
#include "cpu/kernels/rows.h"

namespace vaal::VAAL_ISA {
namespace {

template <class T, class S>
void product_in_double(const FisherArguments& args, int64_t row);

template <class T, class S, class Rows>
void products(const FisherArguments& args, int64_t begin, int64_t end) {
  using M = SimdMath<S>;
  using V = typename Register<S>::V;
  const int64_t cols = args.cols;
  const int64_t length = padded_length<S, Rows>(cols);
  Scratch<S> scratch(2 * length);
  S* const column_w = scratch.data;
  S* const column_t = column_w + length;
  const V none = broadcast<S>(S(-__builtin_inf()));
  for (int64_t first = begin; first < end; first += Rows::kRows) {
    // Across packs a where w will lie, and v where t will: a step reads its classes before it writes.
    // Beyond the row lies a class that is ruled out.
    const Rows a_rows(static_cast<const T*>(args.logits), first, end, cols, none[0], column_w);
    const Rows v_rows(static_cast<const T*>(args.tangents), first, end, cols, S(0), column_t);

    const TopTwo<S> top = top_two<S>(a_rows, cols);
    const auto k = top.index;
    const V a_k = top.first, v_k = v_rows.pick(k);
    V m = top.second - a_k, largest{};
    m = m == none ? V{} : m;  // C = 1, or nothing besides the pivot
    for (int64_t j = 0; j < cols; j += Rows::kStep) {
      const V v = v_rows.at(j);
      largest = larger(a_rows.at(j) == none ? V{} : magnitude<S>(v), largest);
    }
    const V s = tangent_scale<S>(Rows::max(largest));

    // What is not finite makes the row NaN, but for the tangent of a class that is ruled out.
    LongSum<V> sum_w{}, sum_wt{(a_k - a_k) + (v_k - v_k), V{}};
    V block_w{}, block_wt{};
    each_step<S, Rows>(cols, [&](int64_t j, int64_t at, auto) __attribute__((always_inline)) {
      const V a = a_rows.at(j), v = v_rows.at(j);
      const auto idle = (Rows::index(j) == k) | (a == none);
      const V w = M::exp(idle ? none : a - top.second);
      const V t = idle ? V{} : (v - v_k) * s;
      block_w += w;
      block_wt += w * t;
      store(column_w + at, w);
      store(column_t + at, t);
    }, [&]() __attribute__((always_inline)) {
      sum_w.take(block_w);
      sum_wt.take(block_wt);
    });
    const auto row = fisher_row<V>(M::exp(m), Rows::sum(sum_w.total), Rows::sum(sum_wt.total));

    V peak{};
    each_step<S, Rows>(cols, [&](int64_t j, int64_t at, auto) __attribute__((always_inline)) {
      const V w = load(column_w + at), t = load(column_t + at);
      const V entry = Rows::index(j) == k ? row.pivot : w * (t - row.mean);
      peak = larger(magnitude<S>(entry), peak);
      store(column_w + at, entry);
    }, []() {});
    peak = Rows::max(peak);
    // Where only classes far below the runner-up move, the peak's reciprocal may be out of range: it is
    // lifted. A peak that float has no digits for is found again in double.
    constexpr S kLow = S(0x1p-100), kLift = S(0x1p100);
    const auto low = peak < kLow;
    const V lift = low ? broadcast<S>(kLift) : broadcast<S>(S(1));
    if (any_lane(low))
      for (int64_t at = 0; at < length; at += Register<S>::kLanes)
        store(column_w + at, load(column_w + at) * lift);
    const V factor = peak == 0 ? V{} : 1 / (peak * lift);
    Rows::write(static_cast<T*>(args.out), first, end, cols, column_w, factor);
    if constexpr (sizeof(S) == 4) {
      if (any_lane(low)) {
        V moved{};
        for (int64_t at = 0; at < length; at += Register<S>::kLanes)
          moved = larger(magnitude<S>(load(column_t + at)), moved);
        moved = Rows::max(moved);
        for (int lane = 0; lane < Rows::kRows && first + lane < end; ++lane)
          if (peak[lane] < kLow && moved[lane] > 0) product_in_double<T, S>(args, first + lane);
      }
    }
  }
}

// One row, in double throughout.
template <class T, class S>
void product_in_double(const FisherArguments& args, int64_t row) {
  using Rows = Along<T, S>;
  const int64_t cols = args.cols, length = padded_length<S, Rows>(cols);
  Scratch<double> columns(3 * length);
  Scratch<S> rounded(length);
  double *const logits = columns.data, *const tangents = logits + length;
  double* const out = tangents + length;
  widen<T, S>(args.logits, row, cols, logits);
  widen<T, S>(args.tangents, row, cols, tangents);
  const FisherArguments wide = {logits, tangents, out, 1, cols, Storage::kFloat64};
  products<double, double, Along<double, double>>(wide, 0, 1);
  for (int64_t j = 0; j < cols; ++j) rounded.data[j] = S(out[j]);
  Rows::write(static_cast<T*>(args.out), row, row + 1, cols, rounded.data, broadcast<S>(S(1)));
}

template <class T, class S>
void run(const FisherArguments& args, int64_t begin, int64_t end) {
  across_pays<S>(args.cols, args.rows) ? products<T, S, Across<T, S>>(args, begin, end)
                                       : products<T, S, Along<T, S>>(args, begin, end);
}

}  // namespace

void fisher_product(const FisherArguments& args, int64_t begin, int64_t end) {
  VAAL_DISPATCH_STORAGE(args.storage, run, args, begin, end);
}

}  // namespace vaal::VAAL_ISA
