// Which part of which row a block works on when `splits` blocks share a row.
#pragma once

#include <cstdint>

#include "cuda/device.cuh"

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

}  // namespace vaal
