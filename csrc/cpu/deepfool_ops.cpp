// deepfool_step: tensors in, tensors out; threads over the rows of the gradients, then over samples.

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "cpu/samples.h"

namespace vaal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double number_at(const void* data, int64_t i, Storage storage) {
  switch (storage) {
    case Storage::kFloat32: return static_cast<const float*>(data)[i];
    case Storage::kFloat64: return static_cast<const double*>(data)[i];
    case Storage::kBFloat16: return static_cast<const torch::headeronly::BFloat16*>(data)[i];
    case Storage::kFloat16: return static_cast<const torch::headeronly::Half*>(data)[i];
  }
  return 0;
}

// The nearest of a sample's boundaries so far.
struct Nearest {
  int64_t slot = -1;  // its place among the candidates; -1: none
  double distance = kInfinity;
  NormPart norm{};      // of its gradient
  bool failed = false;  // something was not finite

  // gap = f(candidate) − f(reference); largest: of the type of the arithmetic.
  void consider(int64_t candidate_slot, double gap, const NormPart& its_norm, double largest) {
    if (gap == -kInfinity) return;  // ruled out
    if (!(gap < kInfinity && its_norm.sum < kInfinity)) failed = true;
    if (failed || (its_norm.sum == 0 && gap != 0)) return;  // a gradient of 0 leads nowhere
    double its_distance = 0;
    if (gap != 0) {
      its_distance = std::abs(gap) / std::sqrt(its_norm.sum);
      if (its_norm.scale != 1) its_distance = std::ldexp(its_distance, -std::ilogb(its_norm.scale));
    }
    if (its_distance > largest || !(its_distance < distance)) return;
    slot = candidate_slot;
    distance = its_distance;
    norm = its_norm;
  }
};

// The step is (gradient·2^−exponent)·factor: distance · gradient/‖gradient‖ without leaving the range.
struct StepFactor {
  int exponent;
  double factor;
};

// For a nearest boundary that is some way off.
StepFactor step_factor(const Nearest& nearest) {
  const double root = std::sqrt(nearest.norm.sum);
  const int root_exponent = std::ilogb(root);
  return {std::ilogb(nearest.norm.scale) + root_exponent,
          nearest.distance / std::ldexp(root, -root_exponent)};
}

std::tuple<Tensor, Tensor, Tensor> deepfool_step(const Tensor& given_logits,
                                                 const Tensor& given_gradients,
                                                 const Tensor& given_reference,
                                                 const Tensor& given_candidates) {
  const DeepfoolTensors given = check_deepfool(given_logits, given_gradients, given_reference,
                                               given_candidates);
  const Tensor &logits = given.logits, &gradients = given.gradients;
  const Tensor &reference = given.reference, &candidates = given.candidates;
  STD_TORCH_CHECK(logits.size(0) == 0 || gradients.numel() > 0,
                  "vaal: gradients must be [B, K, ...] with K >= 1 and elements in each");
  const Storage storage = storage_of(logits);
  const int64_t samples = logits.size(0), classes = logits.size(1), slots = gradients.size(1);
  Tensor nearest = new_tensor(logits, {samples}, ScalarType::Long);
  Tensor distance = new_tensor(logits, {samples}, arithmetic_type(logits));
  Tensor step = new_step(gradients);
  if (samples == 0) return {nearest, distance, step};

  const int64_t bytes = element_bytes(storage), elements = gradients.numel() / samples / slots;
  const char* const from = static_cast<const char*>(gradients.const_data_ptr());
  const auto row = [&](int64_t sample, int64_t slot) {
    return from + (sample * gradients.stride(0) + slot * gradients.stride(1)) * bytes;
  };
  const Samples rows(samples * slots, elements);
  std::vector<NormPart> parts(rows.total());
  rows.each_chunk([&](int64_t i, int64_t at_row, int64_t at, int64_t count) {
    parts[i] = kernels().norm_part(row(at_row / slots, at_row % slots) + at * bytes, count,
                                   storage);
  });

  const void* const f = logits.const_data_ptr();
  const int64_t* const own = reference.const_data_ptr<int64_t>();
  const int64_t* const others = candidates.const_data_ptr<int64_t>();
  int64_t* const nearest_data = nearest.mutable_data_ptr<int64_t>();
  void* const distance_data = distance.mutable_data_ptr();
  const bool in_double = storage == Storage::kFloat64;
  const double largest = in_double ? std::numeric_limits<double>::max()
                                   : double{std::numeric_limits<float>::max()};
  std::vector<Nearest> chosen(samples);
  torch::stable::parallel_for(0, samples, grain(8 * slots), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Nearest best;
      for (int64_t slot = 0; slot < slots; ++slot) {
        const int64_t k = others[i * slots + slot], k0 = own[i];
        if (k == k0) continue;
        if (k < 0 || k >= classes || k0 < 0 || k0 >= classes) {
          best.failed = true;
          continue;
        }
        const double gap = number_at(f, i * classes + k, storage) -
                           number_at(f, i * classes + k0, storage);
        const NormPart* const norm = parts.data() + (i * slots + slot) * rows.chunks;
        best.consider(slot, gap, combine(norm, rows.chunks), largest);
      }
      chosen[i] = best;
      const double value = best.failed ? std::numeric_limits<double>::quiet_NaN() : best.distance;
      nearest_data[i] = best.failed || best.slot < 0 ? -1 : others[i * slots + best.slot];
      if (in_double) static_cast<double*>(distance_data)[i] = value;
      else static_cast<float*>(distance_data)[i] = float(value);
    }
  });

  char* const to = static_cast<char*>(step.mutable_data_ptr());
  Samples(samples, elements).each_chunk([&](int64_t, int64_t i, int64_t at, int64_t count) {
    const Nearest& best = chosen[i];
    char* const out = to + (i * elements + at) * bytes;
    if (best.failed) {
      kernels().scaled(row(i, 0) + at * bytes, out, count, 0,
                       std::numeric_limits<double>::quiet_NaN(), storage);
    } else if (best.slot < 0 || best.distance == 0) {
      std::fill(out, out + count * bytes, 0);  // the gradient may be that of a class ruled out
    } else {
      const StepFactor by = step_factor(best);
      kernels().scaled(row(i, best.slot) + at * bytes, out, count, by.exponent, by.factor, storage);
    }
  });
  return {nearest, distance, step};
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CPU, m) {
  m.impl("deepfool_step", TORCH_BOX(&vaal::deepfool_step));
}
