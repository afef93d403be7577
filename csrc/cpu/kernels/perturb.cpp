// The pieces of the ops over samples: a norm, a scaled addition and a scaling.
//
//   perturb:         out = x + radius · d/‖d‖₂            per sample, d given
//   random_perturb:  out = x + radius · n/‖n‖₂            per sample, n ~ N(0, I) of normals.cpp
//   deepfool_step:   out = distance · w/‖w‖₂              per sample, w chosen
//
// cpu/sample_ops.cpp and cpu/deepfool_ops.cpp cut long samples into chunks of fixed size
// (samples.h), so the result does not depend on the number of threads.

#include <math.h>

#include "cpu/kernels.h"
#include "cpu/kernels/elementary.h"
#include "cpu/kernels/lanes.h"

namespace vaal::VAAL_ISA {
namespace {

// Σ d² of floats. Squares of a few elements are added in float, such sums in double: as good as
// double throughout, at half the price. Where the result is near the ends of float's range (or NaN)
// squares may have left it, and double is used throughout: no scaling pass is needed.
template <bool kExact, class T>
double sum_of_squares(const T* direction, int64_t count) {
  using R = Register<float>;
  typedef float HalfV __attribute__((vector_size(sizeof(R::V) / 2)));
  using D = Register<double>::V;
  constexpr int kChains = 8;  // sums that do not wait for one another
  D total[2] = {};
  const auto add = [&](R::V x, R::V y) {
    HalfV part[2][2];
    memcpy(part[0], &x, sizeof(x));
    memcpy(part[1], &y, sizeof(y));
    for (int half = 0; half < 2; ++half)
      total[half] += __builtin_convertvector(part[0][half], D) *
                     __builtin_convertvector(part[1][half], D);
  };
  const R::V one = broadcast<float>(1.0f);
  int64_t i = 0;
  const auto blocks = [&](auto steps) __attribute__((always_inline)) {  // so many added in float
    constexpr int64_t kBlock = steps() * kChains * R::kLanes;
    for (; i + kBlock <= count; i += kBlock) {
      R::V sum[kChains] = {};
      for (int step = 0; step < steps(); ++step)
        for (int chain = 0; chain < kChains; ++chain) {
          const T* const at = direction + i + (step * kChains + chain) * R::kLanes;
          prefetch_page_after(at);
          const R::V d = load(at);
          sum[chain] += d * d;
        }
      for (int width = kChains / 2; width > 0; width /= 2)
        for (int chain = 0; chain < width; ++chain) sum[chain] += sum[chain + width];
      add(sum[0], one);
    }
  };
  if constexpr (!kExact) {
    blocks([]() constexpr { return 4; });
    blocks([]() constexpr { return 1; });
  }
  for (; i + R::kLanes <= count; i += R::kLanes) {
    prefetch_page_after(direction + i);
    const R::V d = load(direction + i);
    add(d, d);
  }
  if (i < count) {
    const R::V d = load_some<float>(direction + i, count - i, 0.0f);
    add(d, d);
  }
  return lane_sum<double>(total[0] + total[1])[0];
}

template <class T>
NormPart norm_of_floats(const T* direction, int64_t count) {
  const double quick = sum_of_squares<false>(direction, count);
  const bool inside = quick > 1e-24 && quick < 1e36;
  return {1.0, inside ? quick : sum_of_squares<true>(direction, count)};
}

// double: divided by the largest magnitude (a power of two near it) before squaring.
NormPart norm_scaled(const double* direction, int64_t count) {
  using R = Register<double>;
  R::V peak{}, unordered{};
  for (int64_t i = 0; i < count; i += R::kLanes) {
    const R::V d = i + R::kLanes <= count ? load(direction + i)
                                          : load_some<double>(direction + i, count - i, 0.0);
    peak = larger(magnitude<double>(d), peak);
    unordered += d - d;  // NaN if any element is NaN or infinite
  }
  const double largest = lane_max<double>(peak)[0], stray = lane_sum<double>(unordered)[0];
  if (largest == 0 || stray != 0) return {1.0, largest + stray};
  const int exponent = ilogb(largest);
  const double first = ldexp(1.0, -exponent / 2), second = ldexp(1.0, -exponent - -exponent / 2);
  R::V sum{};
  for (int64_t i = 0; i < count; i += R::kLanes) {
    const R::V d = i + R::kLanes <= count ? load(direction + i)
                                          : load_some<double>(direction + i, count - i, 0.0);
    const R::V unit = d * first * second;
    sum += unit * unit;
  }
  return {ldexp(1.0, exponent), lane_sum<double>(sum)[0]};
}

template <class T, class S>
NormPart norm(const void* direction, int64_t count) {
  if constexpr (sizeof(S) == 8) return norm_scaled(static_cast<const double*>(direction), count);
  else return norm_of_floats(static_cast<const T*>(direction), count);
}

// The power of two is split, so that neither half leaves S's range.
template <class T, class Direction, class S>
void add(const T* x, const Direction* direction, T* out, int64_t count, Factor factor) {
  using R = Register<S>;
  int exponent;
  const double fraction = frexp(factor.fraction, &exponent);
  exponent += factor.exponent;
  const S first = S(ldexp(1.0, exponent / 2));
  const S second = S(ldexp(fraction, exponent - exponent / 2));
  int64_t i = 0;
  for (; i + R::kLanes <= count; i += R::kLanes)
    store(out + i, load(x + i) + load(direction + i) * first * second);
  if (i < count)
    store_some<S>(out + i,
                  load_some<S>(x + i, count - i, S(0)) +
                      load_some<S>(direction + i, count - i, S(0)) * first * second,
                  count - i);
}

template <class T, class S>
void add_to(const void* x, const void* direction, void* out, int64_t count, Factor factor) {
  add<T, T, S>(static_cast<const T*>(x), static_cast<const T*>(direction), static_cast<T*>(out),
               count, factor);
}

template <class T, class S>
void add_normals_to(const void* x, const void* normals, void* out, int64_t count, Factor factor) {
  add<T, S, S>(static_cast<const T*>(x), static_cast<const S*>(normals), static_cast<T*>(out),
               count, factor);
}

// The power of two is split, so that neither half leaves S's range.
template <class T, class S>
void scale_to(const void* from, void* to, int64_t count, int exponent, double factor) {
  using R = Register<S>;
  const T* in = static_cast<const T*>(from);
  T* out = static_cast<T*>(to);
  const S first = S(ldexp(1.0, -exponent / 2)), second = S(ldexp(1.0, -exponent - -exponent / 2));
  int64_t i = 0;
  for (; i + R::kLanes <= count; i += R::kLanes)
    store(out + i, load(in + i) * first * second * S(factor));
  if (i < count)
    store_some<S>(out + i, load_some<S>(in + i, count - i, S(0)) * first * second * S(factor),
                  count - i);
}

}  // namespace

NormPart norm_part(const void* direction, int64_t count, Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, norm, direction, count);
}

void add_scaled(const void* x, const void* direction, void* out, int64_t count, Factor factor,
                Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, add_to, x, direction, out, count, factor);
}

void scaled(const void* from, void* out, int64_t count, int exponent, double factor,
            Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, scale_to, from, out, count, exponent, factor);
}

void add_scaled_normals(const void* x, const void* normals, void* out, int64_t count, Factor factor,
                        Storage storage) {
  VAAL_DISPATCH_STORAGE(storage, add_normals_to, x, normals, out, count, factor);
}

}  // namespace vaal::VAAL_ISA
