// The ops over logits: tensors in, tensors out.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/tensors.h"

namespace vaal {
namespace {

struct Logits {
  Tensor p, q;
  int64_t rows, cols;
  Storage storage;
};

Logits check_logits(const Tensor& p, const Tensor& q) {
  STD_TORCH_CHECK(p.dim() == 2 && q.dim() == 2 && p.size(0) == q.size(0) &&
                      p.size(1) == q.size(1) && p.size(1) > 0,
                  "vaal: both arguments must be [B, C] with the same B and C, C >= 1");
  STD_TORCH_CHECK(p.scalar_type() == q.scalar_type(), "vaal: both arguments must have one dtype");
  return {dense(p), dense(q), p.size(0), p.size(1), storage_of(p)};
}

KLArguments arguments(const Logits& logits, double smoothing, bool symmetric) {
  KLArguments args{};
  args.p = logits.p.const_data_ptr();
  args.q = logits.q.const_data_ptr();
  args.rows = logits.rows;
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
                                 entropy.mutable_data_ptr(), margin.mutable_data_ptr(), rows, cols,
                                 storage};
  torch::stable::parallel_for(0, rows, grain(cols), [&](int64_t begin, int64_t end) {
    kernels().posterior_summary(args, begin, end);
  });
  return {label, entropy, margin};
}

Tensor fisher_product(const Tensor& given, const Tensor& given_tangents) {
  const Logits pair = check_logits(given, given_tangents);
  Tensor out = new_tensor({pair.rows, pair.cols}, given.scalar_type());
  prefer_huge_pages(out);
  const FisherArguments args = {pair.p.const_data_ptr(), pair.q.const_data_ptr(),
                                out.mutable_data_ptr(), pair.rows, pair.cols, pair.storage};
  torch::stable::parallel_for(0, pair.rows, grain(pair.cols), [&](int64_t begin, int64_t end) {
    kernels().fisher_product(args, begin, end);
  });
  return out;
}

std::tuple<Tensor, Tensor> fisher_direction(const Tensor& given) {
  STD_TORCH_CHECK(given.dim() == 2 && given.size(1) > 0, "vaal: logits must be [B, C] with C >= 1");
  const Tensor logits = dense(given);
  const int64_t rows = logits.size(0), cols = logits.size(1);
  const Storage storage = storage_of(logits);
  Tensor out = new_tensor({rows, cols}, logits.scalar_type());
  Tensor curvature = new_tensor({rows}, arithmetic_type(storage));
  prefer_huge_pages(out);
  const DirectionArguments args = {logits.const_data_ptr(), out.mutable_data_ptr(),
                                   curvature.mutable_data_ptr(), rows, cols, storage};
  torch::stable::parallel_for(0, rows, grain(cols), [&](int64_t begin, int64_t end) {
    kernels().fisher_direction(args, begin, end);
  });
  return {out, curvature};
}

}  // namespace
}  // namespace vaal

STABLE_TORCH_LIBRARY_IMPL(vaal, CPU, m) {
  m.impl("symmetric_kl", TORCH_BOX(&vaal::symmetric_kl));
  m.impl("symmetric_kl_backward", TORCH_BOX(&vaal::symmetric_kl_backward));
  m.impl("symmetric_kl_direction", TORCH_BOX(&vaal::symmetric_kl_direction));
  m.impl("posterior_summary", TORCH_BOX(&vaal::posterior_summary));
  m.impl("fisher_product", TORCH_BOX(&vaal::fisher_product));
  m.impl("fisher_direction", TORCH_BOX(&vaal::fisher_direction));
}
