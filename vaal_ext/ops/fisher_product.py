"""The Fisher matrix of the posterior times a tangent, per row: the op of method="fisher"."""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import check_alike, check_logits, check_tensor, refuse_gradient
from ._transforms import not_differentiable

__all__ = ["fisher_product"]

_call = not_differentiable("fisher_product")


def fisher_product(logits: Tensor, tangents: Tensor) -> Tensor:
    """F·v with F = diag(p) - ppᵀ, p = softmax(logits), each row scaled to maximum 1.

    F is the Hessian of KL(p‖q) by q's logits at q = p, and half of that of J, so JᵀFJ is what the
    quadratic form of section III-A is made of (J the Jacobian of the logits). As in
    :func:`symmetric_kl_direction` only the direction of a row is kept, which survives float16 and
    saturation to any degree. A row whose product is zero (equal tangents, one class) is returned
    as zeros, and so is one where every class whose tangent differs from the largest class's lies
    more than 700 below the runner-up (on CUDA 87, in types other than float64).

    Args:
        logits: [B, C], C >= 1. Any strides. A class at -inf has a product of 0, whatever its
            tangent; anything else that is not finite gives a NaN row.
        tangents: v [B, C], like logits in dtype and device; of any size (if differences are
            finite).

    Returns:
        [B, C], contiguous, in the logits' dtype, max |row| = 1.

    Raises:
        TypeError: not tensors, or not one floating dtype.
        ValueError: not [B, C] with C >= 1, shapes or devices that differ.
        RuntimeError: an argument requires grad while grad mode is on, or carries a tangent of
            forward mode (this op has no derivative).
    """
    check_logits("logits", logits)
    check_tensor("tangents", tangents)
    check_alike("logits", logits, "tangents", tangents)
    refuse_gradient("fisher_product", logits, tangents)
    result: Tensor = _call(logits, tangents)
    return result


@torch.library.register_fake("vaal::fisher_product")
def _(logits: Tensor, tangents: Tensor) -> Tensor:
    return tangents.new_empty(tangents.shape)
