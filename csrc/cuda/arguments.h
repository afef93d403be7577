// What the kernels are called with, and the way to call them: what the tensor code (*.cpp) sees of them.
//
// The launches are defined beside their kernels (*.cuh) and compiled for every storage type by the
// *.cu files. Those know nothing of torch, and the tensor code knows nothing of CUDA's language: nvcc
// goes through all that a file includes once for every architecture.
#pragma once

#include <cstdint>

#include "cuda/launch_plan.h"
#include "cuda/storage_types.h"

struct CUstream_st;

namespace vaal {

using Stream = CUstream_st*;  // cudaStream_t

// Where an op takes a workspace, it has NAME_workspace_bytes() of the plan and its rows. Arrays are
// dense where nothing else is said, and not empty.

// --- symmetric_kl, its backward and its direction ------------------------------------------------
// rows × cols logits, contiguous. A pointer that an op does not use is null.
template <class T>
struct KlArguments {
  const T* p;  // [rows, cols] logits a
  const T* q;  // [rows, cols] logits b
  int64_t rows;
  int cols;

  bool symmetric;
  bool smoothed;
  bool direction;         // grad_q is scaled to unit row maximum, and there is no grad_value
  Scalar<T> keep, floor;  // 1 − smoothing and smoothing / cols

  Scalar<T>* value;             // [rows]
  const Scalar<T>* grad_value;  // [rows], grad_value_stride elements apart (0: expanded)
  int64_t grad_value_stride;
  T* grad_p;  // [rows, cols]: backward
  T* grad_q;  // [rows, cols]: backward and direction

  bool whole_packs;  // every row of every tensor starts at a multiple of 16 bytes
};

template <class T>
int64_t kl_workspace_bytes(const LaunchPlan& plan, int64_t rows);
template <Op kOp, class T>
void launch_kl(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace, Stream stream);
// The stream and split paths, which are the same for the three ops.
template <class T>
void launch_kl_long_rows(const KlArguments<T>& args, const LaunchPlan& plan, void* workspace,
                         Stream stream);

// --- fisher_product ------------------------------------------------------------------------------
template <class T>
struct FisherArguments {
  const T* p;  // [rows, cols] logits
  const T* q;  // [rows, cols] tangents
  T* out;
  int64_t rows;
  int cols;
  bool whole_packs;  // every row of every tensor starts at a multiple of 16 bytes
};

template <class T>
void launch_fisher(const FisherArguments<T>& args, const LaunchPlan& plan, Stream stream);

// --- fisher_direction ----------------------------------------------------------------------------
template <class T>
struct DirectionArguments {
  const T* logits;
  T* out;
  Scalar<T>* curvature;
  int64_t rows;
  int cols;
  bool whole_packs;  // every row of every tensor starts at a multiple of 16 bytes
};

template <class T>
void launch_direction(const DirectionArguments<T>& args, const LaunchPlan& plan, Stream stream);

// --- posterior_summary ---------------------------------------------------------------------------
template <class T>
struct SummaryArguments {
  const T* logits;
  int64_t* label;
  Scalar<T>* entropy;
  Scalar<T>* margin;
  int64_t rows;
  int cols;
  bool whole_packs;  // every row starts at a multiple of 16 bytes
};

template <class T>
int64_t summary_workspace_bytes(const LaunchPlan& plan, int64_t rows);
template <class T>
void launch_summary(const SummaryArguments<T>& args, const LaunchPlan& plan, void* workspace,
                    Stream stream);

// --- perturb -------------------------------------------------------------------------------------
template <class T>
struct PerturbArguments {
  const T* x;
  const T* direction;
  T* out;
  Scalar<T>* norm;
  int64_t rows, cols;
  Scalar<T> radius;
  bool whole_packs;  // every row of every tensor starts at a multiple of 16 bytes
};

template <class T>
int64_t perturb_workspace_bytes(const LaunchPlan& plan, int64_t rows);
template <class T>
void launch_perturb(const PerturbArguments<T>& args, const LaunchPlan& plan, void* workspace,
                    Stream stream);

// --- random_perturb ------------------------------------------------------------------------------
template <class T>
struct RandomPerturbArguments {
  const T* x;
  const int64_t* sample_index;
  T* out;
  int64_t rows, cols;
  uint64_t seed;
  Scalar<T> radius;
  bool whole_packs;  // every row of both tensors starts at a multiple of 16 bytes
};

template <class T>
int64_t random_perturb_workspace_bytes(const LaunchPlan& plan, int64_t rows);
template <class T>
void launch_random_perturb(const RandomPerturbArguments<T>& args, const LaunchPlan& plan,
                           void* workspace, Stream stream);

// --- deepfool_step -------------------------------------------------------------------------------
template <class T>
struct DeepfoolArguments {
  const T* logits;
  const T* gradients;
  const int64_t* reference;   // [samples]
  const int64_t* candidates;  // [samples, candidates]
  int64_t* nearest;
  Scalar<T>* distance;
  T* step;
  int64_t samples, classes, cols;
  int64_t sample_stride, candidate_stride;  // of gradients, in elements; cols of them lie together
  int count;                                // candidates of a sample
  bool whole_packs;  // every row of gradients and of step starts at a multiple of 16 bytes
};

template <class T>
int64_t deepfool_workspace_bytes(const LaunchPlan& plan, int64_t rows);
template <class T>
void launch_deepfool(const DeepfoolArguments<T>& args, const LaunchPlan& plan, void* workspace,
                     Stream stream);

}  // namespace vaal
