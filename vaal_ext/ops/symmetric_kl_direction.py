"""The divergence and the direction of its gradient, in one pass: the op of the power iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from vaal_ext.checks import require_divergence

from ._checks import arithmetic_dtype, check_pair, refuse_gradient
from ._transforms import not_differentiable

__all__ = ["symmetric_kl_direction"]

_call = not_differentiable("symmetric_kl_direction")


def symmetric_kl_direction(
    p_logits: Tensor, q_logits: Tensor, *, smoothing: float = 0.0, divergence: str = "symmetric"
) -> tuple[Tensor, Tensor]:
    """The value of :func:`symmetric_kl` and d value / d q_logits, each row scaled to maximum 1.

    The power iteration normalises the input gradient of every sample, so only the direction of a
    row matters: scaled, it survives float16 and the network's backward, and a row saturated to any
    degree (a logit gap of 60, say) keeps it. A row whose gradient is zero is returned as zeros.
    What counts is how far the classes that move lie below the runner-up of p_logits: where all of
    them do by more than 700, the row is zeros as well (on CUDA 87, in types other than float64).
    With smoothing, and the largest classes tied, half as far is the end.

    Args:
        p_logits, q_logits, smoothing, divergence: as in :func:`symmetric_kl`.

    Returns:
        value A[B]; dlogits [B, C], contiguous, in the logits' dtype, max |dlogits[i]| = 1.

    Raises:
        TypeError, ValueError: as :func:`symmetric_kl`.
        RuntimeError: an argument requires grad while grad mode is on, or carries a tangent of
            forward mode (this op has no derivative).
    """
    check_pair(p_logits, q_logits)
    require_divergence(divergence, smoothing)
    refuse_gradient("symmetric_kl_direction", p_logits, q_logits)
    result: tuple[Tensor, Tensor] = _call(
        p_logits, q_logits, float(smoothing), divergence == "symmetric"
    )
    return result


@torch.library.register_fake("vaal::symmetric_kl_direction")
def _(
    p_logits: Tensor, q_logits: Tensor, smoothing: float, symmetric: bool
) -> tuple[Tensor, Tensor]:
    value = p_logits.new_empty(p_logits.shape[0], dtype=arithmetic_dtype(p_logits))
    return value, q_logits.new_empty(q_logits.shape)
