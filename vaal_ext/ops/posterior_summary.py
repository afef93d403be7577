"""Pseudo label, entropy and margin of the posterior, in one pass over the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import arithmetic_dtype, check_logits, refuse_gradient
from ._transforms import not_differentiable

__all__ = ["posterior_summary"]

_call = not_differentiable("posterior_summary")


def posterior_summary(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the query strategies ask of p = softmax(logits), per row.

    Args:
        logits: [B, C], C >= 1. Any strides.

    Returns:
        pseudo_label int64[B], argmax p (the smallest index where several tie; section III-B);
        entropy A[B], -Σ p log p in nats, accurate also where p is almost one-hot (section II);
        margin A[B], the largest posterior minus the second largest (1 where C = 1).
        A row with NaN or +inf has NaN entropy and margin, and its label means nothing.

    Raises:
        TypeError: not a floating tensor.
        ValueError: not [B, C] with C >= 1.
        RuntimeError: logits require grad while grad mode is on, or carry a tangent of
            forward mode (this op has no derivative).
    """
    check_logits("logits", logits)
    refuse_gradient("posterior_summary", logits)
    result: tuple[Tensor, Tensor, Tensor] = _call(logits)
    return result


@torch.library.register_fake("vaal::posterior_summary")
def _(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, dtype = logits.shape[0], arithmetic_dtype(logits)
    return (
        logits.new_empty(rows, dtype=torch.int64),
        logits.new_empty(rows, dtype=dtype),
        logits.new_empty(rows, dtype=dtype),
    )
