// Which kernel runs an op on `rows` rows of `cols` elements, and in what shape. Pure host code.
//
// A row is one sample: cols = C logits, or D elements of an image. Four paths:
//
//   warp    1 … 32 lanes share a row, several rows a block; the row stays in registers.
//   block   one block a row; the row stays in the block's registers.
//   stream  one block a row that is too long for that. The KL and the two ops of F keep as much of it
//           in shared memory as there is room and read the rest again (from L2) in every step;
//           posterior_summary needs one pass. The KL with smoothing takes this path at every length.
//   split   several blocks a row: each step is a kernel of its own and leaves one partial result a
//           block in a workspace. For few long rows (the two ops of F stream those too), and for
//           long samples of perturb, random_perturb and deepfool_step (whose stream would read a row
//           twice all the same).
//
// Every thread moves packs of 16 bytes where the row stride and the pointers are multiples of 16,
// and single elements otherwise: vector_width says which of the two the row stride allows.
//
// Loads + stores from device memory per element of a row, the row on the chip (a copy: 1 + 1):
//
//   symmetric_kl 2 + 0     its direction 2 + 1     its backward 2 + 1, or 2 + 2 for both gradients
//   perturb 2 + 1, split 3 + 1      random_perturb 1 + 1      posterior_summary 1 + 0
//   deepfool_step K + 1 + 1 an element of a sample, whose K rows are the gradients of K classes
//   fisher_product 2 + 1     fisher_direction 1 + 1
//
// python_tests/cuda/test_cuda_traffic.py counts them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace vaal {

enum class Op {
  kSymmetricKl,
  kSymmetricKlBackward,
  kSymmetricKlDirection,
  kPerturb,
  kRandomPerturb,
  kPosteriorSummary,
  kDeepfoolStep,
  kFisherProduct,
  kFisherDirection
};

enum class Path { kWarp, kBlock, kStream, kSplit };

// What a device offers; the defaults are an H100's.
struct DeviceLimits {
  int multiprocessors = 132;
  int shared_bytes = 227 * 1024;    // that one block may ask for
  int64_t max_blocks = 2147483647;  // of one launch; the kernels loop over what is left
};

struct LaunchPlan {
  Path path = Path::kWarp;
  int threads_per_row = 1;  // of one block
  int rows_per_block = 1;   // at a time
  int block_threads = 32;
  int items_per_thread = 1;  // elements that a thread holds at a time
  int vector_width = 1;      // elements of one load or store, if the pointers are aligned too
  int64_t blocks = 0;
  int splits = 1;        // blocks that share a row
  int cached_packs = 0;  // stream: packs of each thread and tensor kept in shared memory
  int shared_bytes = 0;  // a block's dynamic shared memory
};

constexpr int kMaxStateBytes = 48;  // the largest partial result that a block reduces
constexpr int kReductionBytes = 2 * 32 * kMaxStateBytes;
constexpr int kWarpPathThreads = 128;
constexpr int kSplitThreads = 256;
// Of a block that goes through a long row of the KL with smoothing. No more than leave every thread
// registers to spare (168; 255 for double, which takes twice as many).
constexpr int smoothed_threads(int dtype_size) { return dtype_size == 8 ? 256 : 384; }

// Of a block that goes through a long row otherwise, at most: as many as a multiprocessor holds with 80
// registers (128 for double).
constexpr int long_row_threads(int dtype_size) { return dtype_size == 8 ? 512 : 768; }

// How much of a row a thread of each op holds in registers, in packs of 16 bytes of the stored
// type, and how many threads may share a row. The KL keeps three numbers of the arithmetic type
// an element between its steps, the two ops of F two, the others only the packs: hence fewer packs there. A type of two
// bytes has eight elements a pack.
struct RegisterShape {
  int few_packs, many_packs, max_threads;
};

constexpr RegisterShape register_shape(Op op, int dtype_size) {
  switch (op) {
    case Op::kPerturb: return {1, dtype_size == 2 ? 2 : 4, dtype_size == 8 ? 512 : 768};
    case Op::kRandomPerturb:  // multiples of the four normals of a Philox block
      return dtype_size == 8 ? RegisterShape{2, 4, 512}
                             : RegisterShape{1, dtype_size == 4 ? 4 : 2, 512};
    case Op::kPosteriorSummary:
    case Op::kDeepfoolStep: return {1, dtype_size == 2 ? 2 : 4, 512};
    default: {  // fewer packs, and so more threads a row, would pay for more reductions
      const int packs = dtype_size == 2 ? 1 : 2;
      return {packs, packs, dtype_size == 8 ? 256 : 384};
    }
  }
}

constexpr int64_t ceil_div(int64_t x, int64_t y) { return (x + y - 1) / y; }

inline const char* path_name(Path path) {
  constexpr const char* kNames[] = {"warp", "block", "stream", "split"};
  return kNames[static_cast<int>(path)];
}

inline std::optional<Op> op_from_name(std::string_view name) {
  if (name == "symmetric_kl") return Op::kSymmetricKl;
  if (name == "symmetric_kl_backward") return Op::kSymmetricKlBackward;
  if (name == "symmetric_kl_direction") return Op::kSymmetricKlDirection;
  if (name == "perturb") return Op::kPerturb;
  if (name == "random_perturb") return Op::kRandomPerturb;
  if (name == "posterior_summary") return Op::kPosteriorSummary;
  if (name == "deepfool_step") return Op::kDeepfoolStep;
  if (name == "fisher_product") return Op::kFisherProduct;
  if (name == "fisher_direction") return Op::kFisherDirection;
  return std::nullopt;
}

namespace plan_detail {

// 1, 2, 4 … 32 lanes with at most `items` elements each.
inline LaunchPlan warp_path(LaunchPlan plan, int64_t cols, int items) {
  plan.path = Path::kWarp;
  plan.items_per_thread = items;
  plan.threads_per_row = 1;
  while (plan.threads_per_row < 32 && int64_t{plan.threads_per_row} * items < cols)
    plan.threads_per_row *= 2;
  plan.block_threads = kWarpPathThreads;
  plan.rows_per_block = kWarpPathThreads / plan.threads_per_row;
  return plan;
}

inline LaunchPlan block_path(LaunchPlan plan, int64_t cols, int items) {
  plan.path = Path::kBlock;
  plan.items_per_thread = items;
  plan.threads_per_row = static_cast<int>(ceil_div(ceil_div(cols, items), 32) * 32);
  // Two warps at least: a group of 32 threads is a warp and belongs to the path of that name.
  plan.threads_per_row = std::max(plan.threads_per_row, 64);
  plan.block_threads = plan.threads_per_row;
  plan.shared_bytes = kReductionBytes;
  return plan;
}

// A block of `threads` a row. `kept`: how many tensors' columns stay in shared memory, as far as a block
// may take `room` bytes of it.
inline LaunchPlan stream_path(LaunchPlan plan, int64_t cols, int dtype_size, int threads, int kept,
                              int room) {
  plan.path = Path::kStream;
  plan.threads_per_row = plan.block_threads = threads;
  const int64_t pack_bytes = kept * 16 * int64_t{threads};  // a pack of each
  const int64_t most = pack_bytes == 0 ? 0 : (room - kReductionBytes) / pack_bytes;
  const int64_t needed = ceil_div(cols * dtype_size, int64_t{16} * threads);
  plan.cached_packs = static_cast<int>(std::max<int64_t>(0, std::min(most, needed)));
  plan.shared_bytes = kReductionBytes + static_cast<int>(plan.cached_packs * pack_bytes);
  return plan;
}

// Two blocks a multiprocessor where two rows fit in its shared memory: one waits for memory while the
// other computes. Else one block with as many threads, and all of that memory.
inline LaunchPlan long_row_path(LaunchPlan plan, int64_t cols, int dtype_size, int kept,
                                int shared_limit) {
  constexpr int kReserved = 1024;  // of every block, beside what it asks for
  const int threads = long_row_threads(dtype_size), half = (shared_limit - kReserved) / 2;
  const LaunchPlan one_of_two = stream_path(plan, cols, dtype_size, threads / 2, kept, half);
  const int64_t held = int64_t{one_of_two.cached_packs} * threads / 2 * (16 / dtype_size);
  return held >= cols ? one_of_two
                      : stream_path(plan, cols, dtype_size, threads, kept, shared_limit);
}

inline LaunchPlan split_path(LaunchPlan plan, int64_t rows, int64_t cols, int64_t wanted_blocks) {
  plan.path = Path::kSplit;
  plan.threads_per_row = plan.block_threads = kSplitThreads;
  plan.shared_bytes = kReductionBytes;
  const int64_t tile = int64_t{kSplitThreads} * plan.items_per_thread;
  const int64_t most = std::min<int64_t>(ceil_div(cols, tile), 2048);
  const int64_t least = ceil_div(cols, int64_t{1} << 24);  // a part is addressed by 32-bit numbers
  plan.splits = static_cast<int>(
      std::max({least, std::min(ceil_div(wanted_blocks, rows), most), int64_t{1}}));
  return plan;
}

}  // namespace plan_detail

// Columns that each block of the split path works on: whole packs, so that alignment carries over.
inline int split_part(const LaunchPlan& plan, int64_t cols, int pack_items) {
  return static_cast<int>(ceil_div(ceil_div(cols, plan.splits), pack_items) * pack_items);
}

// Whether every row of contiguous [.., cols] tensors begins at a multiple of 16 bytes. Null pointers
// stand for tensors that are not there.
inline bool whole_packs(int64_t cols, int64_t dtype_size,
                        std::initializer_list<const void*> tensors) {
  bool whole = cols * dtype_size % 16 == 0;
  for (const void* tensor : tensors) whole &= reinterpret_cast<uintptr_t>(tensor) % 16 == 0;
  return whole;
}

// smoothed: the KL with smoothing > 0. Throws std::invalid_argument.
inline LaunchPlan launch_plan(Op op, int64_t rows, int64_t cols, int dtype_size,
                              bool smoothed = false, const DeviceLimits& limits = {}) {
  if (rows < 0 || cols < 0)
    throw std::invalid_argument("launch_plan: rows and cols must not be negative");
  if (dtype_size != 2 && dtype_size != 4 && dtype_size != 8)
    throw std::invalid_argument("launch_plan: an element has 2, 4 or 8 bytes, got " +
                                std::to_string(dtype_size));
  const bool of_image = op == Op::kPerturb || op == Op::kRandomPerturb || op == Op::kDeepfoolStep;
  if (!of_image && cols > (int64_t{1} << 30))
    throw std::invalid_argument("launch_plan: more than 2^30 classes: " + std::to_string(cols));

  const RegisterShape shape = register_shape(op, dtype_size);
  const int pack_items = 16 / dtype_size;
  const int few = shape.few_packs * pack_items, many = shape.many_packs * pack_items;
  LaunchPlan plan;
  plan.items_per_thread = many;
  plan.vector_width = cols * dtype_size % 16 == 0 ? pack_items : 1;
  const bool summary = op == Op::kPosteriorSummary;
  const bool of_fisher = op == Op::kFisherProduct || op == Op::kFisherDirection;
  const int kept = summary ? 0 : op == Op::kFisherDirection ? 1 : 2;

  if (smoothed && !of_image && !summary && !of_fisher) {
    if (cols <= 32 * many) {
      plan = plan_detail::warp_path(plan, cols, many);
      plan.path = Path::kStream;
      plan.shared_bytes = kReductionBytes;
    } else {
      plan = plan_detail::stream_path(plan, cols, dtype_size, smoothed_threads(dtype_size), kept,
                                      limits.shared_bytes);
    }
  } else if (cols <= 32 * few) {
    plan = plan_detail::warp_path(plan, cols, few);
  } else if (cols <= 32 * many) {
    plan = plan_detail::warp_path(plan, cols, many);
  } else if (cols <= int64_t{shape.max_threads} * many) {
    plan = plan_detail::block_path(plan, cols, many);
  } else if (of_image) {
    plan = plan_detail::split_path(plan, std::max<int64_t>(rows, 1), cols,
                                   8 * int64_t{limits.multiprocessors});
  } else if (2 * rows <= limits.multiprocessors && !of_fisher) {
    plan = plan_detail::split_path(plan, std::max<int64_t>(rows, 1), cols,
                                   2 * int64_t{limits.multiprocessors});
  } else if (summary) {
    plan = plan_detail::stream_path(plan, cols, dtype_size, shape.max_threads, 0, 0);
  } else {
    plan = plan_detail::long_row_path(plan, cols, dtype_size, kept, limits.shared_bytes);
  }
  plan.blocks = cols == 0 ? 0
                          : std::min(ceil_div(rows, plan.rows_per_block) * plan.splits,
                                     limits.max_blocks);
  return plan;
}

}  // namespace vaal
