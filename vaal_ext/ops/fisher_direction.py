"""The direction in which a posterior changes most, per row: the op of method="direct"."""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import arithmetic_dtype, check_logits, refuse_gradient
from ._transforms import not_differentiable

__all__ = ["fisher_direction"]

_call = not_differentiable("fisher_direction")


def fisher_direction(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The top eigenvector of F = diag(p) - ppᵀ, p = softmax(logits), and its eigenvalue λ.

    F is the Hessian of KL(p‖q) by q's logits at q = p: among changes of the logits of one length
    this is the one that changes the posterior most, and λ says how much. Its entry at the pseudo
    label is -1, the others are >= 0 and add up to 1, so along it the pseudo label loses. λ lies
    between the second largest p and the largest; of two classes it is 2·p_0·p_1, of a row that is
    saturated to any degree it keeps its digits, and the direction does where λ underflows. Where
    several classes share the largest p the first of them is the pseudo label, and the others move
    alike.

    Args:
        logits: [B, C], C >= 1. Any strides. A class at -inf has an entry of 0; anything else that
            is not finite makes the row and its λ NaN.

    Returns:
        direction [B, C], contiguous, in the logits' dtype, max |row| = 1; curvature λ A[B]. Both
        are 0 where there is one class only, or one that is not ruled out.

    Raises:
        TypeError: no tensor of a floating dtype.
        ValueError: not [B, C] with C >= 1.
        RuntimeError: the logits require grad while grad mode is on, or carry a tangent of forward
            mode (this op has no derivative).
    """
    check_logits("logits", logits)
    refuse_gradient("fisher_direction", logits)
    result: tuple[Tensor, Tensor] = _call(logits)
    return result


@torch.library.register_fake("vaal::fisher_direction")
def _(logits: Tensor) -> tuple[Tensor, Tensor]:
    curvature = logits.new_empty(logits.shape[0], dtype=arithmetic_dtype(logits))
    return logits.new_empty(logits.shape), curvature
