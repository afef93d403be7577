// The CPU back end: tensors in, tensors out. Checks, allocation, threads and the choice of the
// instruction set; the arithmetic is in the kernels (kernels.h).

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels.h"

namespace vaal {

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

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The widest set that this processor runs; VAAL_CPU_ISA=portable|avx2|avx512 asks for a narrower
// one (for tests and measurements).
const Kernels& choose_kernels() {
  const char* asked = std::getenv("VAAL_CPU_ISA");
  const auto allowed = [&](const char* isa) { return !asked || std::strcmp(asked, isa) == 0; };
#if defined(VAAL_X86)
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 =
      has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && allowed("avx512")) return avx512::kernels;
  if (has_avx2 && allowed("avx2")) return avx2::kernels;
#endif
  STD_TORCH_CHECK(!asked || allowed("portable"), "VAAL_CPU_ISA=", asked,
                  " is not an instruction set of this processor and build");
  return portable::kernels;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose_kernels();
  return chosen;
}

Storage storage_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return Storage::kFloat32;
    case ScalarType::Double: return Storage::kFloat64;
    case ScalarType::BFloat16: return Storage::kBFloat16;
    case ScalarType::Half: return Storage::kFloat16;
    default: STD_TORCH_CHECK(false, "vaal: expected float32, float64, bfloat16 or float16");
  }
}

int64_t element_bytes(Storage storage) {
  return storage == Storage::kFloat64 ? 8 : storage == Storage::kFloat32 ? 4 : 2;
}

ScalarType arithmetic_type(Storage storage) {
  return storage == Storage::kFloat64 ? ScalarType::Double : ScalarType::Float;
}

// Memory this large comes fresh from the kernel at every allocation; in pages of 4 KiB the page
// faults cost more than the arithmetic. Advice only: where it is not taken nothing changes.
void prefer_huge_pages([[maybe_unused]] const Tensor& x) {
#if defined(__linux__)
  constexpr uintptr_t kPage = uintptr_t(1) << 21, kLarge = uintptr_t(1) << 25;
  const uintptr_t bytes = uintptr_t(x.numel()) * element_bytes(storage_of(x));
  if (bytes < kLarge) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(x.mutable_data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = (begin + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

Tensor new_tensor(std::initializer_list<int64_t> sizes, ScalarType dtype) {
  int64_t strides[2] = {sizes.size() == 2 ? sizes.begin()[1] : 1, 1};
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      int64_t(sizes.size()), sizes.begin(), strides,
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
      aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

Tensor dense(const Tensor& x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

// Rows a thread should at least get: below about 8192 elements waking it costs more than it does.
int64_t grain(int64_t cols) {
  return std::max<int64_t>(1, 8192 / std::max<int64_t>(1, cols));
}

struct Logits {
  Tensor p, q;
  int64_t rows, cols;
  Storage storage;
};

Logits check_logits(const Tensor& p, const Tensor& q) {
  STD_TORCH_CHECK(p.dim() == 2 && q.dim() == 2 && p.size(0) == q.size(0) && p.size(1) == q.size(1),
                  "vaal: p_logits and q_logits must both be [B, C] with the same B and C");
  STD_TORCH_CHECK(p.scalar_type() == q.scalar_type(), "vaal: logits must have one dtype");
  return {dense(p), dense(q), p.size(0), p.size(1), storage_of(p)};
}

KLArguments arguments(const Logits& logits, double smoothing, bool symmetric) {
  KLArguments args{};
  args.p = logits.p.const_data_ptr();
  args.q = logits.q.const_data_ptr();
  args.cols = logits.cols;
  args.smoothing = smoothing;
  args.symmetric = symmetric;
  args.storage = logits.storage;
  return args;
}

void run(const Logits& logits, const KLArguments& args) {
  torch::stable::parallel_for(0, logits.rows, grain(logits.cols), [&](int64_t begin, int64_t end) {
    kernels().symmetric_kl(args, begin, end);
  });
}

Tensor symmetric_kl(const Tensor& p, const Tensor& q, double smoothing, bool symmetric) {
  const Logits logits = check_logits(p, q);
  Tensor value = new_tensor({logits.rows}, arithmetic_type(logits.storage));
  KLArguments args = arguments(logits, smoothing, symmetric);
  args.value = value.mutable_data_ptr();
  run(logits, args);
  return value;
}

std::tuple<Tensor, Tensor> symmetric_kl_backward(const Tensor& grad_value, const Tensor& p,
                                                 const Tensor& q, double smoothing, bool symmetric,
                                                 bool need_p, bool need_q) {
  const Logits logits = check_logits(p, q);
  STD_TORCH_CHECK(grad_value.dim() == 1 && grad_value.size(0) == logits.rows &&
                      grad_value.scalar_type() == arithmetic_type(logits.storage),
                  "vaal: grad_value must be [B] in the type of the value");
  const ScalarType dtype = p.scalar_type();
  const auto result = [&](bool needed) {
    if (!needed) return new_tensor({0}, dtype);
    Tensor grad = new_tensor({logits.rows, logits.cols}, dtype);
    prefer_huge_pages(grad);
    return grad;
  };
  Tensor grad_p = result(need_p), grad_q = result(need_q);
  KLArguments args = arguments(logits, smoothing, symmetric);
  args.grad_value = grad_value.const_data_ptr();
  args.grad_value_stride = grad_value.stride(0);
  args.grad_p = need_p ? grad_p.mutable_data_ptr() : nullptr;
  args.grad_q = need_q ? grad_q.mutable_data_ptr() : nullptr;
  run(logits, args);
  return {grad_p, grad_q};
}

std::tuple<Tensor, Tensor> symmetric_kl_direction(const Tensor& p, const Tensor& q,
                                                  double smoothing, bool symmetric) {
  const Logits logits = check_logits(p, q);
  Tensor value = new_tensor({logits.rows}, arithmetic_type(logits.storage));
  Tensor dlogits = new_tensor({logits.rows, logits.cols}, p.scalar_type());
  prefer_huge_pages(dlogits);
  KLArguments args = arguments(logits, smoothing, symmetric);
  args.value = value.mutable_data_ptr();
  args.grad_q = dlogits.mutable_data_ptr();
  args.direction = true;
  run(logits, args);
  return {value, dlogits};
}

std::tuple<Tensor, Tensor, Tensor> posterior_summary(const Tensor& given) {
  STD_TORCH_CHECK(given.dim() == 2 && given.size(1) > 0, "vaal: logits must be [B, C] with C >= 1");
  const Tensor logits = dense(given);
  const int64_t rows = logits.size(0), cols = logits.size(1);
  const Storage storage = storage_of(logits);
  Tensor label = new_tensor({rows}, ScalarType::Long);
  Tensor entropy = new_tensor({rows}, arithmetic_type(storage));
  Tensor margin = new_tensor({rows}, arithmetic_type(storage));
  const SummaryArguments args = {logits.const_data_ptr(),
                                 static_cast<int64_t*>(label.mutable_data_ptr()),
                                 entropy.mutable_data_ptr(), margin.mutable_data_ptr(), cols, storage};
  torch::stable::parallel_for(0, rows, grain(cols), [&](int64_t begin, int64_t end) {
    kernels().posterior_summary(args, begin, end);
  });
  return {label, entropy, margin};
}

// ---- perturbations -------------------------------------------------------------------------------

// Samples are cut into chunks of this many elements, so that one long sample keeps every thread
// busy; a chunk fits the L2 cache. Fixed, so that results do not depend on the thread count.
constexpr int64_t kChunk = 32768;

struct Samples {
  int64_t count, elements, chunks;  // chunks of one sample
  explicit Samples(const Tensor& x)
      : count(x.size(0)),
        elements(x.size(0) == 0 ? 0 : x.numel() / x.size(0)),
        chunks((elements + kChunk - 1) / kChunk) {}
  int64_t total() const { return count * chunks; }
  int64_t chunk_grain() const { return std::max<int64_t>(1, grain(std::min(elements, kChunk))); }
};

double combine(const NormPart* part, int64_t count) {
  double peak = 0, sum = 0;
  for (int64_t i = 0; i < count; ++i) peak = std::max(peak, part[i].scale);
  for (int64_t i = 0; i < count; ++i) {
    const double relative = part[i].scale / peak;
    sum += part[i].sum * relative * relative;
  }
  return peak * std::sqrt(sum);
}

// radius/norm; a zero direction moves nothing, one that is not finite has no direction.
double factor_of(double radius, double norm) {
  if (norm == 0) return 0;
  return std::isfinite(norm) ? radius / norm : std::numeric_limits<double>::quiet_NaN();
}

// measure(sample, begin, count) gives a chunk's norm, apply(sample, begin, count, factor) writes
// it; a sample of one chunk is measured and written while it is in the cache.
template <class Measure, class Apply, class Report>
void move_samples(const Samples& samples, double radius, const Measure& measure, const Apply& apply,
                  const Report& report) {
  const auto each_chunk = [&](const auto& body) {
    torch::stable::parallel_for(0, samples.total(), samples.chunk_grain(),
                                [&](int64_t begin, int64_t end) {
                                  for (int64_t i = begin; i < end; ++i) {
                                    const int64_t at = i % samples.chunks * kChunk;
                                    body(i, i / samples.chunks, at,
                                         std::min(kChunk, samples.elements - at));
                                  }
                                });
  };
  if (samples.chunks == 1) {
    each_chunk([&](int64_t, int64_t sample, int64_t at, int64_t count) {
      const NormPart part = measure(sample, at, count);
      const double norm = combine(&part, 1);
      report(sample, norm);
      apply(sample, at, count, factor_of(radius, norm));
    });
    return;
  }
  std::vector<NormPart> parts(samples.total());
  std::vector<double> factors(samples.count);
  each_chunk([&](int64_t i, int64_t sample, int64_t at, int64_t count) {
    parts[i] = measure(sample, at, count);
  });
  for (int64_t sample = 0; sample < samples.count; ++sample) {
    const double norm = combine(parts.data() + sample * samples.chunks, samples.chunks);
    report(sample, norm);
    factors[sample] = factor_of(radius, norm);
  }
  each_chunk([&](int64_t, int64_t sample, int64_t at, int64_t count) {
    apply(sample, at, count, factors[sample]);
  });
}

bool same_strides(const Tensor& a, const Tensor& b) {
  return std::equal(a.strides().begin(), a.strides().end(), b.strides().begin());
}

// Every sample is one dense block, in whatever order of its dimensions (channels_last, say), so
// that elementwise work may follow memory.
bool samples_are_dense(const Tensor& x) {
  const int64_t elements = x.numel() / x.size(0);
  if (x.size(0) > 1 && x.stride(0) != elements) return false;
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t d = 1; d < x.dim(); ++d)
    if (x.size(d) > 1) dims.emplace_back(x.stride(d), x.size(d));
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

std::tuple<Tensor, Tensor> perturb(const Tensor& x, const Tensor& direction, double radius) {
  STD_TORCH_CHECK(x.dim() >= 1 && x.dim() == direction.dim() &&
                      std::equal(x.sizes().begin(), x.sizes().end(), direction.sizes().begin()) &&
                      x.scalar_type() == direction.scalar_type(),
                  "vaal: x and direction must have one shape [B, ...] and one dtype");
  const Storage storage = storage_of(x);
  Tensor norm = new_tensor({x.size(0)}, arithmetic_type(storage));
  Tensor out = torch::stable::empty_like(x);
  if (x.numel() == 0) {
    torch::stable::zero_(norm);
    return {out, norm};
  }
  const bool in_place_order =
      same_strides(x, direction) && same_strides(x, out) && samples_are_dense(x);
  const Tensor from = in_place_order ? x : dense(x);
  const Tensor along = in_place_order ? direction : dense(direction);
  Tensor to = in_place_order || out.is_contiguous() ? out : torch::stable::empty_like(from);

  prefer_huge_pages(to);
  const Samples samples(x);
  const int64_t bytes = element_bytes(storage);
  const char* x_data = static_cast<const char*>(from.const_data_ptr());
  const char* direction_data = static_cast<const char*>(along.const_data_ptr());
  char* out_data = static_cast<char*>(to.mutable_data_ptr());
  void* norm_data = norm.mutable_data_ptr();
  const auto offset = [&](int64_t sample, int64_t at) {
    return (sample * samples.elements + at) * bytes;
  };
  move_samples(
      samples, radius,
      [&](int64_t sample, int64_t at, int64_t count) {
        return kernels().norm_part(direction_data + offset(sample, at), count, storage);
      },
      [&](int64_t sample, int64_t at, int64_t count, double factor) {
        const int64_t o = offset(sample, at);
        kernels().add_scaled(x_data + o, direction_data + o, out_data + o, count, factor, storage);
      },
      [&](int64_t sample, double value) {
        if (storage == Storage::kFloat64) static_cast<double*>(norm_data)[sample] = value;
        else static_cast<float*>(norm_data)[sample] = float(value);
      });
  if (to.get() != out.get()) torch::stable::copy_(out, to);
  return {out, norm};
}

Tensor random_perturb(const Tensor& x, double radius, int64_t seed, const Tensor& sample_index) {
  STD_TORCH_CHECK(x.dim() >= 1 && sample_index.dim() == 1 && sample_index.size(0) == x.size(0) &&
                      sample_index.scalar_type() == ScalarType::Long,
                  "vaal: x must be [B, ...] and sample_index int64[B]");
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
  // Each thread draws into a buffer of its own; a sample of one chunk is drawn once.
  static thread_local std::vector<double> buffer;
  const auto draw = [&](int64_t sample, int64_t at, int64_t count) {
    buffer.resize(kChunk);
    kernels().normals({uint64_t(seed), uint64_t(index[sample * index_stride]), at, count, storage},
                      buffer.data());
  };
  const Storage arithmetic =
      storage == Storage::kFloat64 ? Storage::kFloat64 : Storage::kFloat32;
  move_samples(
      samples, radius,
      [&](int64_t sample, int64_t at, int64_t count) {
        draw(sample, at, count);
        return kernels().norm_part(buffer.data(), count, arithmetic);
      },
      [&](int64_t sample, int64_t at, int64_t count, double factor) {
        if (samples.chunks > 1) draw(sample, at, count);
        const int64_t o = (sample * samples.elements + at) * bytes;
        kernels().add_scaled_normals(x_data + o, buffer.data(), out_data + o, count, factor,
                                     storage);
      },
      [](int64_t, double) {});
  if (to.get() != out.get()) torch::stable::copy_(out, to);
  return out;
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CPU, m) {
  m.impl("symmetric_kl", TORCH_BOX(&vaal::symmetric_kl));
  m.impl("symmetric_kl_backward", TORCH_BOX(&vaal::symmetric_kl_backward));
  m.impl("symmetric_kl_direction", TORCH_BOX(&vaal::symmetric_kl_direction));
  m.impl("posterior_summary", TORCH_BOX(&vaal::posterior_summary));
  m.impl("perturb", TORCH_BOX(&vaal::perturb));
  m.impl("random_perturb", TORCH_BOX(&vaal::random_perturb));
}

// What this process will run, for vaal_ext info: a plain C symbol, found with ctypes.
extern "C" __attribute__((visibility("default"))) const char* vaal_cpu_isa() {
  return vaal::kernels().isa;
}
