// From the gradients of one row of symmetric_kl to its output.
#pragma once

#include "cpu/kernels.h"
#include "cpu/kernels/rows.h"

namespace vaal::VAAL_ISA {

// What multiplies a row's gradient: `scale` of its columns and the upstream gradient, or 1/peak in two
// factors. A peak near the bottom of the range is lifted first, so that its reciprocal stays finite.
template <class S>
struct GradientFactor {
  S lift, factor;
};

template <class S>
GradientFactor<S> gradient_factor(const KLArguments& args, int64_t row, S scale, S peak) {
  if (args.direction) {
    const S lift = peak < S(1e-36) ? S(0x1p120) : peak < S(1e-30) ? S(0x1p60) : S(1);
    return {lift, peak == 0 ? S(0) : 1 / (peak * lift)};
  }
  const S* upstream = static_cast<const S*>(args.grad_value);
  return {S(1), upstream ? scale * upstream[row * args.grad_value_stride] : scale};
}

// peak: the largest magnitude in column_q.
template <class T, class S>
void write_gradients(const KLArguments& args, int64_t row, S scale, S peak, S* column_q,
                     S* column_p) {
  const auto scaled = gradient_factor<S>(args, row, scale, peak);
  const auto write = [&](void* out, S* column) {
    if (out == nullptr) return;
    for (int64_t j = 0; j < args.cols; j += Register<S>::kLanes)
      store(column + j, load(column + j) * scaled.lift);
    Along<T, S>::write(static_cast<T*>(out), row, row + 1, args.cols, column,
                       broadcast<S>(scaled.factor));
  };
  write(args.grad_q, column_q);
  write(args.grad_p, column_p);
}

// row(arguments) for the one row copied in double, from whose results the row's are rounded.
template <class T, class S, class Row>
void in_double(const KLArguments& args, int64_t index, const Row& row) {
  const int64_t cols = args.cols, length = padded_length<S, Along<T, S>>(cols);
  Scratch<double> columns(4 * length);
  Scratch<S> rounded(length);
  double *const a = columns.data, *const b = a + length, *const grad_p = b + length;
  double* const grad_q = grad_p + length;
  widen<T, S>(args.p, index, cols, a);
  widen<T, S>(args.q, index, cols, b);
  const S* const upstream = static_cast<const S*>(args.grad_value);
  const double given = upstream ? upstream[index * args.grad_value_stride] : 1;
  double value;
  KLArguments wide = args;
  wide.p = a;
  wide.q = b;
  wide.rows = 1;
  wide.value = args.value ? &value : nullptr;
  wide.grad_value = upstream ? &given : nullptr;
  wide.grad_p = args.grad_p ? grad_p : nullptr;
  wide.grad_q = args.grad_q ? grad_q : nullptr;
  wide.storage = Storage::kFloat64;
  row(wide);
  if (args.value != nullptr) static_cast<S*>(args.value)[index] = S(value);
  const auto narrowed = [&](void* out, const double* column) {
    if (out == nullptr) return;
    for (int64_t j = 0; j < cols; ++j) rounded.data[j] = S(column[j]);
    Along<T, S>::write(static_cast<T*>(out), index, index + 1, cols, rounded.data,
                       broadcast<S>(S(1)));
  };
  narrowed(args.grad_p, grad_p);
  narrowed(args.grad_q, grad_q);
}

}  // namespace vaal::VAAL_ISA
