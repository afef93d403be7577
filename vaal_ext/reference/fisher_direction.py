"""The direction in which a posterior changes most, per row."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fisher_direction"]


def fisher_direction(logits: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`vaal_ext.ops.fisher_direction`. Computed in float64 and rounded once.

    The formulas are in csrc/math/fisher_direction.h.
    """
    accumulate = torch.promote_types(logits.dtype, torch.float32)
    a = logits.double()
    if not a.numel():
        return torch.empty_like(logits), logits.new_empty(len(logits), dtype=accumulate)
    k = a.argmax(dim=1, keepdim=True)
    a_k = a.gather(1, k)
    others = a.scatter(1, k, -torch.inf)
    runner_up = others.amax(dim=1, keepdim=True)
    alone = runner_up == -torch.inf
    runner_up = torch.where(alone, a_k, runner_up)
    shift = (others - runner_up).masked_fill(others == -torch.inf, -torch.inf)
    weight, gap = shift.exp(), -torch.expm1(runner_up - a_k)
    distance = -torch.expm1(shift) / gap.clamp(min=2.0**-120)
    ratio, rest = (runner_up - a_k).exp(), weight.sum(1, keepdim=True)
    mean = (rest - (weight * distance).sum(1, keepdim=True) / rest) / (1 + ratio * rest)
    sigma = torch.maximum(1 / (1 + ratio), mean.nan_to_num(-torch.inf))
    for _ in range(12):
        share = 1 / (sigma + distance)
        total = (weight * share).sum(1, keepdim=True)
        slope = (weight * share.square()).sum(1, keepdim=True) + ratio * total.square()
        sigma = sigma + total * ((1 - ratio * sigma) * total - 1) / slope
    entries = weight / (sigma + distance)
    direction = (entries / entries.sum(1, keepdim=True)).scatter(1, k, -1.0)
    curvature = ratio / (1 + ratio * rest) * (1 + gap * sigma)
    nothing = a_k - a_k  # NaN where the pivot is not finite
    direction = torch.where(alone, 0.0, direction) + nothing
    curvature = (torch.where(alone, 0.0, curvature) + nothing).squeeze(1)
    # What is NaN beside a finite pivot makes the whole row NaN.
    direction = direction + 0.0 * curvature.unsqueeze(1)
    return direction.to(logits.dtype), curvature.to(accumulate)
