// Two ways to lay a row of logits over registers, behind one interface, and the pass that both ops
// over logits begin with: the pivot and the runners-up.
//
//   Along:  one row at a time, lanes are consecutive classes; a reduction crosses the lanes.
//   Across: kLanes rows at a time, lanes are rows; a reduction is free, but the rows must be
//           transposed first. Faster where a row is not many registers long.
#pragma once

#include <stdlib.h>

#include "elementary.h"

namespace vaal::VAAL_ISA {

template <class T, class S>
struct Along {
  using R = Register<S>;
  using V = typename R::V;
  using I = typename R::I;
  static constexpr int kRows = 1;
  static constexpr int kStep = R::kLanes;
  static constexpr int64_t scratch(int64_t) { return 0; }

  const T* row;
  int64_t cols;
  S fill;

  Along(const T* logits, int64_t first, int64_t, int64_t cols, S fill, S*)
      : row(logits + first * cols), cols(cols), fill(fill) {}
  // Classes j, j+1, …; `fill` beyond the row, which only the last step reaches (kWhole = false).
  template <bool kWhole = false>
  VAAL_HD V at(int64_t j) const {
    if constexpr (kWhole) return load(row + j);
    return j + kStep <= cols ? load(row + j) : load_some<S>(row + j, cols - j, fill);
  }
  static VAAL_HD I index(int64_t j) { return lane_numbers<S>() + typename R::Lane(j); }
  VAAL_HD V pick(I k) const { return broadcast<S>(load_one<S>(row + k[0])); }
  static VAAL_HD V sum(V x) { return lane_sum<S>(x); }
  static VAAL_HD V max(V x) { return lane_max<S>(x); }
  // The second largest over all lanes: the largest once one lane that holds it shows its second.
  static VAAL_HD V second(V first, V second, V max) {
    const I holds = first == max;
    const I lane = lane_min<S>(holds ? lane_numbers<S>() : I{} + kStep);
    return lane_max<S>(lane_numbers<S>() == lane ? second : first);
  }
  VAAL_HD void ask_ahead(int64_t j) const { prefetch_page_after(row + j); }
  // The first index of the largest logit, beside which the padding is never larger, whatever `fill`
  // is: a row may lie below it, or be −inf throughout. The maximum runs in four chains, for each step would
  // otherwise wait for the one before; then the row is searched for it. Where NaN is about the
  // result is some index, and the differences that the callers form are NaN all the same.
  VAAL_HD I arg_max() const {
    const Along rows(row, 0, 1, cols, S(-__builtin_inf()), nullptr);
    V best[4] = {rows.at(0), rows.at(0), rows.at(0), rows.at(0)};
    int64_t j = 0;
    for (; j + 4 * kStep <= cols; j += 4 * kStep)
      for (int i = 0; i < 4; ++i) best[i] = larger(load(row + j + i * kStep), best[i]);
    for (; j < cols; j += kStep) best[0] = larger(rows.at(j), best[0]);
    const V largest = max(larger(larger(best[0], best[1]), larger(best[2], best[3])));
    for (j = 0; j < cols; j += kStep) {
      if (any_lane(rows.at(j) == largest)) return first_index(rows.at(j), index(j), largest);
    }
    return I{};
  }
  // The smallest index among the lanes that hold the maximum; 0 where none does (all NaN).
  static VAAL_HD I first_index(V value, I index, V max) {
    constexpr auto kNone = typename R::Lane(~(uint64_t(1) << (8 * sizeof(S) - 1)));
    const I best = lane_min<S>(value == max ? index : I{} + kNone);
    return best == kNone ? I{} : best;
  }
  template <bool kWhole = false, class To>
  static VAAL_HD void write(To* out, int64_t first, int64_t, int64_t cols, int64_t j, V v) {
    To* to = out + first * cols + j;
    prefetch_page_after(to);
    kWhole || j + kStep <= cols ? store(to, v) : store_some<S>(to, v, cols - j);
  }
  static VAAL_HD void write_row(S* out, int64_t first, int64_t, V v) { out[first] = v[0]; }
};

template <class T, class S>
struct Across {
  using R = Register<S>;
  using V = typename R::V;
  using I = typename R::I;
  static constexpr int kRows = R::kLanes;
  static constexpr int kStep = 1;
  static constexpr int64_t scratch(int64_t cols) { return cols * R::kLanes; }

  S* column;  // [cols][kLanes]
  int64_t cols;

  // Rows beyond the last are copies of it; they are not written back.
  Across(const T* logits, int64_t first, int64_t last, int64_t cols, S, S* scratch)
      : column(scratch), cols(cols) {
    for (int lane = 0; lane < R::kLanes; ++lane) {
      const T* row = logits + (first + lane < last ? first + lane : last - 1) * cols;
      if constexpr (sizeof(T) == sizeof(S)) {
        for (int64_t j = 0; j < cols; ++j) column[j * R::kLanes + lane] = row[j];
      } else {
        S line[R::kLanes];
        for (int64_t j = 0; j < cols; j += R::kLanes) {
          const int64_t n = cols - j < R::kLanes ? cols - j : R::kLanes;
          store(line, n == R::kLanes ? load(row + j) : load_some<S>(row + j, n, S(0)));
          for (int64_t i = 0; i < n; ++i) column[(j + i) * R::kLanes + lane] = line[i];
        }
      }
    }
  }
  template <bool kWhole = false>
  VAAL_HD V at(int64_t j) const {
    return load(column + j * R::kLanes);
  }
  static VAAL_HD I index(int64_t j) { return I{} + typename R::Lane(j); }
  VAAL_HD void ask_ahead(int64_t) const {}
  VAAL_HD I arg_max() const {
    V best = load(column);
    I found{};
    for (int64_t j = 1; j < cols; ++j) {
      const V x = load(column + j * R::kLanes);
      found = x > best ? index(j) : found;
      best = larger(x, best);
    }
    return found;
  }
  VAAL_HD V pick(I k) const {
    typename R::Lane at[R::kLanes];
    memcpy(at, &k, sizeof(k));
    S picked[R::kLanes];
    for (int lane = 0; lane < R::kLanes; ++lane) picked[lane] = column[at[lane] * R::kLanes + lane];
    return load(picked);
  }
  static VAAL_HD V sum(V x) { return x; }
  static VAAL_HD V max(V x) { return x; }
  static VAAL_HD V second(V, V second, V) { return second; }
  static VAAL_HD I first_index(V, I index, V) { return index; }
  template <bool kWhole = false, class To>
  static VAAL_HD void write(To* out, int64_t first, int64_t last, int64_t cols, int64_t j, V v) {
    To line[R::kLanes];
    store(line, v);
    for (int lane = 0; lane < R::kLanes && first + lane < last; ++lane)
      out[(first + lane) * cols + j] = line[lane];
  }
  static VAAL_HD void write_row(S* out, int64_t first, int64_t last, V v) {
    const int64_t rows = last - first < R::kLanes ? last - first : R::kLanes;
    memcpy(out + first, &v, rows * sizeof(S));
  }
};

// Short rows are cheaper transposed than reduced (measured), where there are rows enough to fill
// the lanes.
template <class S>
VAAL_HD bool across_pays(int64_t cols, int64_t rows) {
  return cols <= 48 && 4 * rows > Register<S>::kLanes;
}

// Elements that a row (or kRows rows) takes in scratch.
template <class S, class Rows>
VAAL_HD int64_t padded_length(int64_t cols) {
  return (cols + Rows::kStep - 1) / Rows::kStep * Register<S>::kLanes;
}

// Working memory of one call, aligned for whole registers.
template <class S>
struct Scratch {
  S* data;
  explicit Scratch(int64_t count)
      : data(static_cast<S*>(aligned_alloc(64, (count * sizeof(S) + 127) / 64 * 64))) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { free(data); }
};

struct Yes {
  constexpr bool operator()() const { return true; }
};
struct No {
  constexpr bool operator()() const { return false; }
};

// body(j, at, whole) for every step of a row: j the first class, at its place in scratch. `whole`
// is Yes where the step lies inside the row, so the main loop carries no test for the row's end.
template <class S, class Rows, class Body>
VAAL_HD void each_step(int64_t cols, const Body& body) {
  int64_t j = 0, at = 0;
  for (; j + Rows::kStep <= cols; j += Rows::kStep, at += Register<S>::kLanes) body(j, at, Yes{});
  if (j < cols) body(j, at, No{});
}

// The largest and second largest logit and the first index of the largest; NaN is passed over here
// and comes back through the differences that the callers form.
template <class S>
struct TopTwo {
  typename Register<S>::V first, second;
  typename Register<S>::I index;
};

template <class S, class Rows>
VAAL_HD TopTwo<S> top_two(const Rows& rows, int64_t cols) {
  using V = typename Register<S>::V;
  V first = broadcast<S>(S(-__builtin_inf())), second = first;
  auto index = Rows::index(0);
  for (int64_t j = 0; j < cols; j += Rows::kStep) {
    const V x = rows.at(j);
    const auto above = x > first;
    second = larger(smaller(first, x), second);  // a NaN x leaves both as they are
    index = above ? Rows::index(j) : index;
    first = above ? x : first;
  }
  const V max = Rows::max(first);
  return {max, Rows::second(first, second, max), Rows::first_index(first, index, max)};
}

}  // namespace vaal::VAAL_ISA
