// When `splits` blocks share a row: which part of which row a block works on, and what the parts left.
#pragma once

#include <cstdint>

#include "cuda/group.cuh"

namespace vaal {

// Part `split` of a row covers `part` columns from split·part on; the last ones may be shorter or
// empty. Neighbouring blocks take neighbouring parts of a row.
struct SplitPart {
  int64_t row;
  int64_t offset;  // of the part's first element in the tensor
  int split;
  int length;

  VAAL_DEVICE SplitPart(int64_t block, int splits, int part, int64_t cols)
      : row(splits == 1 ? block : block / splits), split(static_cast<int>(block - row * splits)) {
    const int64_t begin = int64_t{split} * part < cols ? int64_t{split} * part : cols;
    offset = row * cols + begin;
    length = static_cast<int>(cols - begin < part ? cols - begin : part);
  }
};

// One member of the row's partials, merged. state_of(partial) reads it.
template <class Partial, class StateOf>
VAAL_DEVICE auto merged(Group<GroupKind::kBlock>& group, const Partial* partials, int splits,
                        StateOf&& state_of) {
  decltype(state_of(*partials)) state;
  for (int s = group.rank; s < splits; s += group.size) state = merge(state, state_of(partials[s]));
  return group.reduce(state);
}

}  // namespace vaal
