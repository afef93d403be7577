// The threads that share one row, reductions over them, and the rows that they go through.
//
// A group is 1, 2, 4, 8, 16 or 32 neighbouring lanes of a warp, or a whole block of full warps.
// Reductions use shuffles, and for a block one barrier each; no atomics, so the order of every
// sum is fixed and the results repeat bit for bit.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/device.cuh"
#include "cuda/launch_plan.h"

namespace vaal {

constexpr int kWarp = 32;

template <class State>
VAAL_DEVICE State shuffled(const State& state, int flip) {
  static_assert(sizeof(State) % 4 == 0);
  uint32_t words[sizeof(State) / 4];
  memcpy(words, &state, sizeof(State));
#pragma unroll
  for (uint32_t& word : words) word = shuffle_xor(word, flip);
  State other;
  memcpy(&other, words, sizeof(State));
  return other;
}

// What a group can be in a kernel: lanes of one warp, a whole block of at least two warps, or either.
// A block's first kReductionBytes of shared memory belong to its reductions.
enum class GroupKind { kLanes, kBlock, kEither };

// Shuffles name all lanes of a warp: its groups come to every reduction together.
template <GroupKind kKind>
struct Group {
  int size;      // threads of the group
  int rank;      // this thread's place in it
  int turn = 0;  // which half of the shared memory the next reduction writes to

  VAAL_DEVICE explicit Group(int threads_per_row) : size(threads_per_row), rank(thread_index()) {
    if (!is_block()) rank &= size - 1;
  }

  VAAL_DEVICE bool is_block() const {
    return kKind == GroupKind::kBlock || (kKind == GroupKind::kEither && size > kWarp);
  }

  // The merge of every thread's State, known to all of them. State{} is the neutral element;
  // merge(x, y) does not depend on the order of x and y.
  template <class State>
  VAAL_DEVICE State reduce(State state) {
    static_assert(sizeof(State) <= kMaxStateBytes);
#pragma unroll
    for (int flip = kWarp / 2; flip > 0; flip /= 2)
      if (is_block() || flip < size) state = merge(state, shuffled(state, flip));
    if constexpr (kKind != GroupKind::kLanes) {
      if (is_block()) return reduce_warps(state);
    }
    return state;
  }

  // x, which is the same for all threads of the group, or true: whether x holds for a group of this
  // warp. What depends on it can hold reductions.
  VAAL_DEVICE bool any_beside(bool x) const { return is_block() ? x : any_lane(x); }

  // f(row, exists) for this group's rows. Where its warp has more groups than there are rows left, a
  // group comes along without one (exists: false): it must move nothing but may read row `row`.
  template <class F>
  VAAL_DEVICE void each_row(int64_t rows, F&& f) const {
    const int together = is_block() ? 1 : thread_count() / size;
    const int mine = is_block() ? 0 : thread_index() / size;
    for (int64_t first = block_index() * together; first < rows;
         first += block_count() * together) {
      const int64_t row = first + mine;
      f(row < rows ? row : rows - 1, row < rows);
    }
  }

 private:
  // The two halves take turns: a thread that is one reduction ahead writes where nobody reads.
  template <class State>
  VAAL_DEVICE State reduce_warps(const State& state) {
    const SharedArray<State> slots(turn * (kWarp * kMaxStateBytes));
    turn ^= 1;
    if (rank % kWarp == 0) slots.store(rank / kWarp, state);
    barrier();
    State total = slots.load(0);
#pragma unroll 4
    for (int warp = 1; warp < size / kWarp; ++warp) total = merge(total, slots.load(warp));
    return total;
  }
};

}  // namespace vaal
