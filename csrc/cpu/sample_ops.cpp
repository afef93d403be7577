// perturb and random_perturb: tensors in, tensors out; threads over samples and chunks of samples.

#include <torch/csrc/stable/library.h>

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "cpu/samples.h"

namespace vaal {
namespace {

// radius/norm; a zero direction moves nothing, one that is not finite has no direction.
// 1/norm itself may lie outside double's range.
Factor factor_of(double radius, const NormPart& norm) {
  if (norm.sum == 0) return {0, 0};
  if (!std::isfinite(norm.sum)) return {0, std::numeric_limits<double>::quiet_NaN()};
  return {-std::ilogb(norm.scale), radius / std::sqrt(norm.sum)};
}

// measure(sample, begin, count) gives a chunk's norm, apply(sample, begin, count, factor) writes
// it; a sample of one chunk is measured and written while it is in the cache.
template <class Measure, class Apply, class Report>
void move_samples(const Samples& samples, double radius, const Measure& measure, const Apply& apply,
                  const Report& report) {
  if (samples.chunks == 1) {
    samples.each_chunk([&](int64_t, int64_t sample, int64_t at, int64_t count) {
      const NormPart part = measure(sample, at, count);
      report(sample, length(part));
      apply(sample, at, count, factor_of(radius, part));
    });
    return;
  }
  std::vector<NormPart> parts(samples.total());
  std::vector<Factor> factors(samples.count);
  samples.each_chunk([&](int64_t i, int64_t sample, int64_t at, int64_t count) {
    parts[i] = measure(sample, at, count);
  });
  for (int64_t sample = 0; sample < samples.count; ++sample) {
    const NormPart norm = combine(parts.data() + sample * samples.chunks, samples.chunks);
    report(sample, length(norm));
    factors[sample] = factor_of(radius, norm);
  }
  samples.each_chunk([&](int64_t, int64_t sample, int64_t at, int64_t count) {
    apply(sample, at, count, factors[sample]);
  });
}

std::tuple<Tensor, Tensor> perturb(const Tensor& x, const Tensor& direction, double radius) {
  check_perturb(x, direction);
  const Storage storage = storage_of(x);
  Tensor norm = new_tensor(x, {x.size(0)}, arithmetic_type(x));
  Tensor out = torch::stable::empty_like(x);
  if (x.numel() == 0) {
    torch::stable::zero_(norm);
    return {out, norm};
  }
  const PerturbTensors lying = in_one_order(x, direction, out);
  prefer_huge_pages(lying.out);
  const Samples samples(x);
  const int64_t bytes = element_bytes(storage);
  const char* x_data = static_cast<const char*>(lying.x.const_data_ptr());
  const char* direction_data = static_cast<const char*>(lying.direction.const_data_ptr());
  char* out_data = static_cast<char*>(lying.out.mutable_data_ptr());
  void* norm_data = norm.mutable_data_ptr();
  const auto offset = [&](int64_t sample, int64_t at) {
    return (sample * samples.elements + at) * bytes;
  };
  move_samples(samples, radius, [&](int64_t sample, int64_t at, int64_t count) {
    return kernels().norm_part(direction_data + offset(sample, at), count, storage);
  }, [&](int64_t sample, int64_t at, int64_t count, Factor factor) {
    const int64_t o = offset(sample, at);
    kernels().add_scaled(x_data + o, direction_data + o, out_data + o, count, factor, storage);
  }, [&](int64_t sample, double value) {
    if (storage == Storage::kFloat64) static_cast<double*>(norm_data)[sample] = value;
    else static_cast<float*>(norm_data)[sample] = float(value);
  });
  if (lying.out.get() != out.get()) torch::stable::copy_(out, lying.out);
  return {out, norm};
}

// Samples shorter than this are drawn in groups: one alone would leave most of a register idle.
constexpr int64_t kShort = 64, kGroup = 16;

Tensor random_perturb(const Tensor& x, double radius, int64_t seed, const Tensor& sample_index) {
  check_random_perturb(x, sample_index);
  const Storage storage = storage_of(x);
  Tensor out = torch::stable::empty_like(x);
  if (x.numel() == 0) return out;
  const Tensor from = dense(x);  // elements are numbered in this order
  Tensor to = out.is_contiguous() ? out : torch::stable::empty_like(from);

  prefer_huge_pages(to);
  const Samples samples(x);
  const int64_t bytes = element_bytes(storage);
  const int64_t* index = sample_index.const_data_ptr<int64_t>();
  const int64_t index_stride = sample_index.stride(0);
  const char* x_data = static_cast<const char*>(from.const_data_ptr());
  char* out_data = static_cast<char*>(to.mutable_data_ptr());
  const Storage arithmetic = storage == Storage::kFloat64 ? Storage::kFloat64 : Storage::kFloat32;
  if (samples.elements < kShort) {
    const int64_t padded = (samples.elements + 3) / 4 * 4 * element_bytes(arithmetic);
    const auto move_group = [&](int64_t first, int64_t count) {
      alignas(64) char group[kGroup * kShort * sizeof(double)];
      kernels().short_normals({uint64_t(seed), index + first * index_stride, index_stride, count,
                               samples.elements, storage},
                              group);
      for (int64_t i = 0; i < count; ++i) {
        const char* direction = group + i * padded;
        const NormPart part = kernels().norm_part(direction, samples.elements, arithmetic);
        const int64_t o = (first + i) * samples.elements * bytes;
        kernels().add_scaled_normals(x_data + o, direction, out_data + o, samples.elements,
                                     factor_of(radius, part), storage);
      }
    };
    const int64_t least = grain(samples.elements);
    torch::stable::parallel_for(0, samples.count, least, [&](int64_t begin, int64_t end) {
      for (int64_t first = begin; first < end; first += kGroup)
        move_group(first, std::min(kGroup, end - first));
    });
    if (to.get() != out.get()) torch::stable::copy_(out, to);
    return out;
  }
  // Each thread draws into a buffer of its own; a sample of one chunk is drawn once.
  static thread_local std::vector<double> buffer;
  const auto draw = [&](int64_t sample, int64_t at, int64_t count) {
    buffer.resize(kChunk);
    kernels().normals({uint64_t(seed), uint64_t(index[sample * index_stride]), at, count, storage},
                      buffer.data());
  };
  move_samples(samples, radius, [&](int64_t sample, int64_t at, int64_t count) {
    draw(sample, at, count);
    return kernels().norm_part(buffer.data(), count, arithmetic);
  }, [&](int64_t sample, int64_t at, int64_t count, Factor factor) {
    if (samples.chunks > 1) draw(sample, at, count);
    const int64_t o = (sample * samples.elements + at) * bytes;
    kernels().add_scaled_normals(x_data + o, buffer.data(), out_data + o, count, factor, storage);
  }, [](int64_t, double) {});
  if (to.get() != out.get()) torch::stable::copy_(out, to);
  return out;
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CPU, m) {
  m.impl("perturb", TORCH_BOX(&vaal::perturb));
  m.impl("random_perturb", TORCH_BOX(&vaal::random_perturb));
}
