// The kernels of one instruction set: plain pointers and counts, no type of PyTorch.
// Each .cpp in kernels/ fills in its part of the table; the files beside this one call through it.
#pragma once

#include <stdint.h>

namespace vaal {

enum class Storage : int32_t { kFloat32, kFloat64, kBFloat16, kFloat16 };

// Rows [begin, end) of p, q [rows, cols]. An output that is null is not computed. How a row is worked
// on may depend on `rows`, not on end − begin: results are not to depend on the number of threads.
// value [rows] and grad_value [rows] are double for kFloat64, float otherwise.
struct KLArguments {
  const void* p;
  const void* q;
  const void* grad_value;  // null: gradients of each row's own value
  int64_t grad_value_stride;
  void* value;
  void* grad_p;
  void* grad_q;
  int64_t rows, cols;
  double smoothing;
  bool symmetric;
  bool direction;  // grad_q's rows are divided by their largest magnitude
  Storage storage;
};

// label int64, entropy, margin [rows] from logits [rows, cols].
struct SummaryArguments {
  const void* logits;
  int64_t* label;
  void* entropy;
  void* margin;
  int64_t rows, cols;
  Storage storage;
};

// out [rows, cols] from logits and tangents [rows, cols]: F·v, rows scaled to unit maximum.
struct FisherArguments {
  const void* logits;
  const void* tangents;
  void* out;
  int64_t rows, cols;
  Storage storage;
};

// out [rows, cols] and curvature [rows] from logits [rows, cols]: the top eigenvector of F, rows scaled
// to unit maximum, and its eigenvalue.
struct DirectionArguments {
  const void* logits;
  void* out;
  void* curvature;
  int64_t rows, cols;
  Storage storage;
};

// ‖·‖₂ = scale·√sum: sums of squares that neither overflow nor underflow.
struct NormPart {
  double scale;
  double sum;
};

// 2^exponent·fraction, which may lie outside double's range.
struct Factor {
  int exponent;
  double fraction;
};

// The normals of one sample: elements [begin, begin + count), begin a multiple of 4.
struct NormalArguments {
  uint64_t seed;
  uint64_t sample;
  int64_t begin;
  int64_t count;
  Storage storage;
};

// The normals of several short samples, whose numbers lie `stride` apart: elements [0, count) of each.
struct ShortNormalArguments {
  uint64_t seed;
  const int64_t* sample;
  int64_t stride, samples, count;
  Storage storage;
};

struct Kernels {
  const char* isa;
  void (*symmetric_kl)(const KLArguments&, int64_t begin, int64_t end);
  void (*posterior_summary)(const SummaryArguments&, int64_t begin, int64_t end);
  void (*fisher_product)(const FisherArguments&, int64_t begin, int64_t end);
  void (*fisher_direction)(const DirectionArguments&, int64_t begin, int64_t end);
  // Partial norm of direction[0, count).
  NormPart (*norm_part)(const void* direction, int64_t count, Storage);
  // out = x + factor·direction, elementwise.
  void (*add_scaled)(const void* x, const void* direction, void* out, int64_t count, Factor factor,
                     Storage);
  // out = (from·2^−exponent)·factor, elementwise; 2^−exponent may lie outside float's range.
  void (*scaled)(const void* from, void* out, int64_t count, int exponent, double factor, Storage);
  // Normals in the type of the arithmetic: double for kFloat64, else float.
  void (*normals)(const NormalArguments&, void* out);
  // A sample begins at a multiple of count rounded up to 4; the last register is written in full.
  void (*short_normals)(const ShortNormalArguments&, void* out);
  // As add_scaled, for a direction in the type of the arithmetic.
  void (*add_scaled_normals)(const void* x, const void* normals, void* out, int64_t count,
                             Factor factor, Storage);
};

// Every instruction set's, from its own compilation of table.cpp.
namespace portable {
extern const Kernels kernels;
}
#if defined(VAAL_X86)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

// Calls F<storage type, type of the arithmetic>; the half types are the namespace's own.
#define VAAL_DISPATCH_STORAGE(storage, F, ...)                       \
  switch (storage) {                                                 \
    case Storage::kFloat32: return F<float, float>(__VA_ARGS__);     \
    case Storage::kFloat64: return F<double, double>(__VA_ARGS__);   \
    case Storage::kBFloat16: return F<BFloat16, float>(__VA_ARGS__); \
    case Storage::kFloat16: return F<Float16, float>(__VA_ARGS__);   \
  }                                                                  \
  __builtin_unreachable()

}  // namespace vaal
