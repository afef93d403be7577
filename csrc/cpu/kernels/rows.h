// Two ways to lay a row of logits over registers, behind one interface, and the pass that both ops
// over logits begin with: the pivot and the runners-up.
//
//   Along:  one row at a time, lanes are consecutive classes; a reduction crosses the lanes.
//   Across: kLanes rows at a time, lanes are rows; a reduction is free, but the rows must be
//           transposed on the way in and out. Faster where a row is not many registers long.
#pragma once

#include <stdlib.h>

#include "cpu/kernels/elementary.h"
#include "cpu/kernels/lanes.h"

namespace vaal::VAAL_ISA {

template <class T, class S>
struct Along {
  using R = Register<S>;
  using V = typename R::V;
  using I = typename R::I;
  static constexpr int kRows = 1;
  static constexpr int kStep = R::kLanes;

  static constexpr S kUnseen = sizeof(S) == 4 ? 80 : 700;  // e^−kUnseen is nothing beside 1

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
  // The logits of both rows at the pivot: a class where `a` is largest. The maximum runs in four
  // chains, for each step would otherwise wait for the one before, and takes its b along. The padding
  // of `a` is −inf here whatever `fill` is, for a row may lie below `fill`, or be −inf throughout.
  // Where NaN is about the pivot is some class, and the differences are NaN all the same.
  // From here on the padding lies so far below the pivot that it has no weight, and does not move.
  static VAAL_HD void pivot(Along& a, Along& b, V& a_k, V& b_k) {
    const V none = broadcast<S>(S(-__builtin_inf()));
    const Along rows(a.row, 0, 1, a.cols, none[0], nullptr);
    V best[4] = {rows.at(0), none, none, none};
    V beside[4] = {b.at(0), none, none, none};
    const auto take = [&](int chain, V x, V y) __attribute__((always_inline)) {
      beside[chain] = x > best[chain] ? y : beside[chain];
      best[chain] = larger(x, best[chain]);
    };
    int64_t j = 0;
    for (; j + 4 * kStep <= a.cols; j += 4 * kStep)
      for (int i = 0; i < 4; ++i) take(i, load(a.row + j + i * kStep), load(b.row + j + i * kStep));
    for (; j < a.cols; j += kStep) take(0, rows.at(j), b.at(j));
    for (int i = 1; i < 4; ++i) take(0, best[i], beside[i]);
    a_k = max(best[0]);
    b_k = max(best[0] == a_k ? beside[0] : none);
    a.fill = a_k[0] - kUnseen;
    b.fill = b_k[0] - kUnseen;
  }
  // The smallest index among the lanes that hold the maximum; 0 where none does (all NaN).
  static VAAL_HD I first_index(V value, I index, V max) {
    constexpr auto kNone = typename R::Lane(~(uint64_t(1) << (8 * sizeof(S) - 1)));
    const I best = lane_min<S>(value == max ? index : I{} + kNone);
    return best == kNone ? I{} : best;
  }
  // out[first, :] = column · scale, one register after another.
  static VAAL_HD void write(T* out, int64_t first, int64_t, int64_t cols, const S* column,
                            V scale) {
    T* to = out + first * cols;
    int64_t j = 0;
    for (; j + kStep <= cols; j += kStep) {
      prefetch_page_after(to + j);
      store(to + j, load(column + j) * scale);
    }
    if (j < cols) store_some<S>(to + j, load(column + j) * scale, cols - j);
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

  S* column;  // [cols][kLanes]
  int64_t cols;

  // Rows beyond the last are copies of it; they are not written back. A register may reach beyond
  // its row into the next one, though never beyond the last: those classes are not kept.
  Across(const T* logits, int64_t first, int64_t last, int64_t cols, S, S* packed)
      : column(packed), cols(cols) {
    for (int64_t j = 0; j < cols; j += kRows) {
      V block[kRows];
      VAAL_UNROLL
      for (int lane = 0; lane < kRows; ++lane) {
        const int64_t at = (first + lane < last ? first + lane : last - 1) * cols + j;
        block[lane] = at + kRows <= last * cols ? load(logits + at)
                                                : load_some<S>(logits + at, cols - j, S(0));
      }
      transpose<S>(block);
      const int64_t count = cols - j < kRows ? cols - j : kRows;
      VAAL_UNROLL
      for (int i = 0; i < kRows; ++i)
        if (i < count) store(column + (j + i) * kRows, block[i]);
    }
  }
  template <bool kWhole = false>
  VAAL_HD V at(int64_t j) const {
    return load(column + j * R::kLanes);
  }
  static VAAL_HD I index(int64_t j) { return I{} + typename R::Lane(j); }
  VAAL_HD void ask_ahead(int64_t) const {}
  static VAAL_HD void pivot(Across& a, Across& b, V& a_k, V& b_k) {
    a_k = a.at(0);
    b_k = b.at(0);
    for (int64_t j = 1; j < a.cols; ++j) {
      const V x = a.at(j);
      b_k = x > a_k ? b.at(j) : b_k;
      a_k = larger(x, a_k);
    }
  }
  // Every row's class k of its own.
  VAAL_HD V pick(I k) const {
    V picked{};
    for (int lane = 0; lane < kRows; ++lane) picked[lane] = column[k[lane] * kRows + lane];
    return picked;
  }
  static VAAL_HD V sum(V x) { return x; }
  static VAAL_HD V max(V x) { return x; }
  static VAAL_HD V second(V, V second, V) { return second; }
  static VAAL_HD I first_index(V, I index, V) { return index; }
  // out[first + lane, j] = column[j][lane] · scale[lane]
  static VAAL_HD void write(T* out, int64_t first, int64_t last, int64_t cols, const S* column,
                            V scale) {
    for (int64_t j = 0; j < cols; j += kRows) {
      const int64_t count = cols - j < kRows ? cols - j : kRows;
      V block[kRows];
      VAAL_UNROLL
      for (int i = 0; i < kRows; ++i)
        block[i] = load(column + (j + (i < count ? i : 0)) * kRows) * scale;
      transpose<S>(block);
      VAAL_UNROLL
      for (int lane = 0; lane < kRows; ++lane) {
        if (first + lane >= last) break;
        T* to = out + (first + lane) * cols + j;
        count == kRows ? store(to, block[lane]) : store_some<S>(to, block[lane], count);
      }
    }
  }
  static VAAL_HD void write_row(S* out, int64_t first, int64_t last, V v) {
    const int64_t rows = last - first < R::kLanes ? last - first : R::kLanes;
    memcpy(out + first, &v, rows * sizeof(S));
  }
};

// Rows of up to this many classes are cheaper transposed than reduced (measured: Along gains on it
// only where its three columns, 48 KiB then, have left the first-level cache for good).
constexpr int64_t kAcrossCols = 256;

// Where there are rows enough to fill the lanes.
template <class S>
VAAL_HD bool across_pays(int64_t cols, int64_t rows) {
  return cols <= kAcrossCols && 4 * rows > Register<S>::kLanes;
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

// One row of [rows, cols], into padded_length<S, Along<T, S>>(cols) doubles.
template <class T, class S>
void widen(const void* rows, int64_t row, int64_t cols, double* column) {
  const Along<T, S> given(static_cast<const T*>(rows), row, row + 1, cols, S(0), nullptr);
  for (int64_t j = 0; j < cols; j += Register<S>::kLanes) {
    const auto loaded = given.at(j);
    for (int lane = 0; lane < Register<S>::kLanes; ++lane) column[j + lane] = loaded[lane];
  }
}

struct Yes {
  constexpr bool operator()() const { return true; }
};
struct No {
  constexpr bool operator()() const { return false; }
};

// A sum that carries along what its last addition rounded away (Kahan): thousands of terms in one
// chain would lose digits.
template <class V>
struct LongSum {
  V total, lost;
  VAAL_HD void add(V term) {
    const V corrected = term - lost, next = total + corrected;
    const V missed = (next - total) - corrected;
    lost = missed == missed ? missed : V{};  // a second infinite term does not make it NaN
    total = next;
  }
  // For a loop that adds up a block plainly first.
  VAAL_HD void take(V& block) {
    add(block);
    block = V{};
  }
};

// body(j, at, whole) for every step of a row: j the first class, at its place in scratch. `whole`
// is Yes where the step lies inside the row, so the main loop carries no test for the row's end.
// settle() after every kBlock steps: there the sums of a block join the row's.
template <class S, class Rows, class Body, class Settle>
VAAL_HD void each_step(int64_t cols, const Body& body, const Settle& settle) {
  constexpr int64_t kBlock = 64;
  const int64_t whole = cols / Rows::kStep * Rows::kStep;
  int64_t j = 0, at = 0;
  while (j < whole) {
    const int64_t left = whole - j, block = kBlock * Rows::kStep;
    const int64_t stop = j + (left < block ? left : block);
    for (; j < stop; j += Rows::kStep, at += Register<S>::kLanes) body(j, at, Yes{});
    settle();
  }
  if (j < cols) {
    body(j, at, No{});
    settle();
  }
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
