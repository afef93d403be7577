// F·v, F = diag(p) − ppᵀ the Fisher matrix of p = softmax(a) by its logits, pivoted on k = argmax a.
//
//   a_r = max_{j≠k} a_j    m = a_r − a_k    w_j = e^(a_j − a_r)    t_j = (v_j − v_k)·s
//   R = Σ w_j    U = Σ w_j t_j (j ≠ k)    Z = 1 + e^m R    mean = Σ p_j t_j = e^m U/Z
//   (F·v)_j · Z/(s·e^m) = w_j (t_j − mean), j ≠ k        (F·v)_k · Z/(s·e^m) = −U/Z
//
// F·v does not see a constant added to v, so t_k = 0 costs nothing. What is left out, s·e^m/Z, is
// common to the row: a row saturated to any degree keeps its direction, and w is measured from a_r,
// because a_j − a_k would round by the size of that gap. s = 1/max|v| keeps tiny and
// huge tangents in range.
#pragma once

#include "math/macros.h"

namespace vaal {

template <class V>
struct FisherRow {
  V mean, pivot;  // Σ p_j t_j, and the pivot's own entry
};

// scale = e^m.
template <class V>
VAAL_HD FisherRow<V> fisher_row(V scale, V R, V U) {
  const V pivot = U / (1 + scale * R);
  return {scale * pivot, -pivot};
}

// The factor s. The smallest normal number bounds it: its reciprocal is finite.
template <class S, class V>
VAAL_HD V tangent_scale(V largest) {
  constexpr S kSmallest = sizeof(S) == 4 ? S(0x1p-126) : S(0x1p-1022);
  return 1 / (largest < kSmallest ? largest - largest + kSmallest : largest);
}

}  // namespace vaal
