// The ops over logits: tensors in, tensors out.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/ops.h"

namespace vaal {
namespace {

KLArguments arguments(const Logits& logits, double smoothing, bool symmetric) {
  KLArguments args{};
  args.p = logits.p.const_data_ptr();
  args.q = logits.q.const_data_ptr();
  args.rows = logits.rows;
  args.cols = logits.cols;
  args.smoothing = smoothing;
  args.symmetric = symmetric;
  args.storage = storage_of(logits.p);
  return args;
}

void run(const Logits& logits, const KLArguments& args) {
  torch::stable::parallel_for(0, logits.rows, grain(logits.cols), [&](int64_t begin, int64_t end) {
    kernels().symmetric_kl(args, begin, end);
  });
}

Tensor symmetric_kl(const Tensor& p, const Tensor& q, double smoothing, bool symmetric) {
  const Logits logits = check_logits(p, q);
  KLArguments args = arguments(logits, smoothing, symmetric);
  Tensor value = new_tensor(p, {logits.rows}, arithmetic_type(p));
  args.value = value.mutable_data_ptr();
  run(logits, args);
  return value;
}

std::tuple<Tensor, Tensor> symmetric_kl_backward(const Tensor& grad_value, const Tensor& p,
                                                 const Tensor& q, double smoothing, bool symmetric,
                                                 bool need_p, bool need_q) {
  const Logits logits = check_logits(p, q);
  KLArguments args = arguments(logits, smoothing, symmetric);
  check_grad_value(grad_value, logits);
  const auto result = [&](bool needed) {
    if (!needed) return new_tensor(p, {0}, p.scalar_type());
    Tensor grad = new_tensor(p, {logits.rows, logits.cols}, p.scalar_type());
    prefer_huge_pages(grad);
    return grad;
  };
  Tensor grad_p = result(need_p), grad_q = result(need_q);
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
  KLArguments args = arguments(logits, smoothing, symmetric);
  Tensor value = new_tensor(p, {logits.rows}, arithmetic_type(p));
  Tensor dlogits = new_tensor(p, {logits.rows, logits.cols}, p.scalar_type());
  prefer_huge_pages(dlogits);
  args.value = value.mutable_data_ptr();
  args.grad_q = dlogits.mutable_data_ptr();
  args.direction = true;
  run(logits, args);
  return {value, dlogits};
}

std::tuple<Tensor, Tensor, Tensor> posterior_summary(const Tensor& given) {
  const Tensor logits = check_logits(given);
  const int64_t rows = logits.size(0), cols = logits.size(1);
  const Storage storage = storage_of(logits);
  Tensor label = new_tensor(logits, {rows}, ScalarType::Long);
  Tensor entropy = new_tensor(logits, {rows}, arithmetic_type(logits));
  Tensor margin = new_tensor(logits, {rows}, arithmetic_type(logits));
  const SummaryArguments args = {logits.const_data_ptr(),
                                 static_cast<int64_t*>(label.mutable_data_ptr()),
                                 entropy.mutable_data_ptr(),
                                 margin.mutable_data_ptr(),
                                 rows,
                                 cols,
                                 storage};
  torch::stable::parallel_for(0, rows, grain(cols), [&](int64_t begin, int64_t end) {
    kernels().posterior_summary(args, begin, end);
  });
  return {label, entropy, margin};
}

Tensor fisher_product(const Tensor& given, const Tensor& given_tangents) {
  const Logits pair = check_logits(given, given_tangents);
  const Storage storage = storage_of(given);
  Tensor out = new_tensor(given, {pair.rows, pair.cols}, given.scalar_type());
  prefer_huge_pages(out);
  const FisherArguments args = {pair.p.const_data_ptr(),
                                pair.q.const_data_ptr(),
                                out.mutable_data_ptr(),
                                pair.rows,
                                pair.cols,
                                storage};
  torch::stable::parallel_for(0, pair.rows, grain(pair.cols), [&](int64_t begin, int64_t end) {
    kernels().fisher_product(args, begin, end);
  });
  return out;
}

std::tuple<Tensor, Tensor> fisher_direction(const Tensor& given) {
  const Tensor logits = check_logits(given);
  const int64_t rows = logits.size(0), cols = logits.size(1);
  const Storage storage = storage_of(logits);
  Tensor out = new_tensor(logits, {rows, cols}, logits.scalar_type());
  Tensor curvature = new_tensor(logits, {rows}, arithmetic_type(logits));
  prefer_huge_pages(out);
  const DirectionArguments args = {logits.const_data_ptr(),
                                   out.mutable_data_ptr(),
                                   curvature.mutable_data_ptr(),
                                   rows,
                                   cols,
                                   storage};
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
