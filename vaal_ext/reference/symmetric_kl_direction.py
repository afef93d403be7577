"""The divergence and the direction of its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from ._divergence import forward_backward

__all__ = ["symmetric_kl_direction"]


def symmetric_kl_direction(
    p_logits: Tensor, q_logits: Tensor, *, smoothing: float = 0.0, divergence: str = "symmetric"
) -> tuple[Tensor, Tensor]:
    """See :func:`vaal_ext.ops.symmetric_kl_direction`. Computed in float64 and rounded once."""
    dtype = torch.promote_types(p_logits.dtype, torch.float32)
    value, _, grad = forward_backward(p_logits.double(), q_logits.double(), smoothing, divergence)
    peak = grad.abs().amax(dim=1, keepdim=True) if grad.shape[1] else grad[:, :0]
    scaled = grad / torch.where(peak == 0, torch.ones_like(peak), peak)
    return value.to(dtype), scaled.to(q_logits.dtype)
