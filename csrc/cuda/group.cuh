// The threads that share one row, and reductions over them.
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
VAAL_DEVICE State shuffled(uint32_t mask, const State& state, int flip) {
  static_assert(sizeof(State) % 4 == 0);
  uint32_t words[sizeof(State) / 4];
  memcpy(words, &state, sizeof(State));
#pragma unroll
  for (uint32_t& word : words) word = shuffle_xor(mask, word, flip);
  State other;
  memcpy(&other, words, sizeof(State));
  return other;
}

// What a group can be in a kernel: lanes of one warp, a whole block of at least two warps, or either.
// A block's first kReductionBytes of shared memory belong to its reductions.
enum class GroupKind { kLanes, kBlock, kEither };

template <GroupKind kKind>
struct Group {
  int size;       // threads of the group
  int rank;       // this thread's place in it
  uint32_t mask;  // the lanes of this warp that belong to it
  int turn = 0;   // which half of the shared memory the next reduction writes to

  VAAL_DEVICE explicit Group(int threads_per_row)
      : size(threads_per_row), rank(thread_index()), mask(0xFFFFFFFFu) {
    if (is_block()) return;
    rank &= size - 1;
    const int first_lane = (thread_index() & (kWarp - 1)) & ~(size - 1);
    if (size < kWarp) mask = ((1u << size) - 1u) << first_lane;
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
      if (is_block() || flip < size) state = merge(state, shuffled(mask, state, flip));
    if constexpr (kKind != GroupKind::kLanes) {
      if (is_block()) return reduce_warps(state);
    }
    return state;
  }

 private:
  // The two halves take turns: a thread that is one reduction ahead writes where nobody reads.
  template <class State>
  VAAL_DEVICE State reduce_warps(const State& state) {
    const SharedArray<State> slots(turn * (kWarp * kMaxStateBytes));
    turn ^= 1;
    const int lane = rank % kWarp, warps = size / kWarp;
    if (lane == 0) slots.store(rank / kWarp, state);
    barrier();
    State total = lane < warps ? slots.load(lane) : State{};
#pragma unroll
    for (int flip = kWarp / 2; flip > 0; flip /= 2)
      total = merge(total, shuffled(mask, total, flip));
    return total;
  }
};

}  // namespace vaal
