// Long samples in chunks, and a norm from the partial norms of its chunks.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>

#include "cpu/ops.h"

namespace vaal {

// Samples are cut into chunks of this many elements, so that one long sample keeps every thread
// busy; a chunk fits the L2 cache. Fixed, so that results do not depend on the thread count.
constexpr int64_t kChunk = 32768;

struct Samples {
  int64_t count, elements, chunks;  // chunks of one sample
  Samples(int64_t count, int64_t elements)
      : count(count), elements(elements), chunks((elements + kChunk - 1) / kChunk) {}
  explicit Samples(const Tensor& x)
      : Samples(x.size(0), x.size(0) == 0 ? 0 : x.numel() / x.size(0)) {}
  int64_t total() const { return count * chunks; }

  // body(chunk, its sample, its first element there, its length) for every chunk, on all threads.
  template <class Body>
  void each_chunk(const Body& body) const {
    const int64_t least = std::max<int64_t>(1, grain(std::min(elements, kChunk)));
    torch::stable::parallel_for(0, total(), least, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = i % chunks * kChunk;
        body(i, i / chunks, at, std::min(kChunk, elements - at));
      }
    });
  }
};

// Parts of 0 have no say in the scale: beside a scale of 1 a sum of tiny squares would vanish.
inline NormPart combine(const NormPart* part, int64_t count) {
  NormPart all{0, 0};
  for (int64_t i = 0; i < count; ++i)
    if (part[i].sum != 0) all.scale = std::max(all.scale, part[i].scale);
  for (int64_t i = 0; i < count; ++i) {
    const double relative = part[i].sum != 0 ? part[i].scale / all.scale : 0;
    all.sum += part[i].sum * relative * relative;
  }
  return all;
}

inline double length(const NormPart& norm) { return norm.scale * std::sqrt(norm.sum); }

}  // namespace vaal
