// Rows that are too long for registers, gone through several times by a block.
#pragma once

#include "cuda/storage.cuh"

namespace vaal {

// One row of kTensors tensors (or the part of it that the block works on), as a thread sees it. The first
// `cached` packs of every thread stay in shared memory; the others are read anew each time, from L2 where
// the rows in flight fit there.
template <class T, int kTensors>
struct RowPacks {
  Columns<T> columns;
  const T* row[kTensors];
  SharedArray<Pack> cache;  // each thread reads only what it wrote
  int cached;
  int size, rank;  // of the block, in threads
  Pack blank;      // what is read past the end

  // Where pack c of tensor n lies in `cache`.
  VAAL_DEVICE int place(int c, int n) const { return (kTensors * c + n) * size + rank; }

  // f(c, packs) for each pack as it comes from device memory, and once with blanks where the packs are no
  // multiple of kAhead: so many are on their way while f works.
  template <int kAhead, class F>
  VAAL_DEVICE void first_read(F&& f) const {
#pragma unroll 1
    for (int c = 0; c < columns.packs(); c += kAhead) {
      Pack ahead[kTensors][kAhead];
#pragma unroll
      for (int n = 0; n < kTensors; ++n) columns.load(row[n], c, blank, ahead[n]);
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        Pack packs[kTensors];
#pragma unroll
        for (int n = 0; n < kTensors; ++n) {
          packs[n] = ahead[n][k];
          if (c + k < cached) cache.store(place(c + k, n), packs[n]);
        }
        f(c + k, packs);
      }
    }
  }

  // f(c, packs) for each pack, after first_read.
  template <class F>
  VAAL_DEVICE void again(F&& f) const {
    Pack packs[kTensors];
    const int all = columns.packs();
#pragma unroll 1
    for (int c = 0; c < cached && c < all; ++c) {
#pragma unroll
      for (int n = 0; n < kTensors; ++n) packs[n] = cache.load(place(c, n));
      f(c, packs);
    }
#pragma unroll 1
    for (int c = cached; c < all; ++c) {
#pragma unroll
      for (int n = 0; n < kTensors; ++n) packs[n] = columns.load(row[n], c, blank);
      f(c, packs);
    }
  }
};

}  // namespace vaal
