"""The Fisher matrix of the posterior times a tangent, per row."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fisher_product"]


def fisher_product(logits: Tensor, tangents: Tensor) -> Tensor:
    """See :func:`vaal_ext.ops.fisher_product`. Computed in float64 and rounded once."""
    a, v = logits.double(), tangents.double()
    if not a.numel():
        return torch.empty_like(tangents, memory_format=torch.contiguous_format)
    k = a.argmax(dim=1, keepdim=True)
    others = a.scatter(1, k, -torch.inf)
    absent = others == -torch.inf
    # Measured from the runner-up: with the pivot's gap in it, a weight would round by its size.
    runner_up = others.amax(dim=1, keepdim=True)
    runner_up = torch.where(runner_up == -torch.inf, a.gather(1, k), runner_up)
    shift = runner_up - a.gather(1, k)
    weight = (others - runner_up).exp()
    moved = (v - v.gather(1, k)).masked_fill(absent, 0.0)
    pivot = (weight * moved).sum(1, keepdim=True) / (
        1.0 + shift.exp() * weight.sum(1, keepdim=True)
    )
    product = (weight * (moved - shift.exp() * pivot)).scatter(1, k, -pivot)
    product = product + 0.0 * (a + v).gather(1, k)  # NaN where the pivot is not finite
    peak = product.abs().amax(dim=1, keepdim=True)
    return (product / torch.where(peak == 0, torch.ones_like(peak), peak)).to(tangents.dtype)
