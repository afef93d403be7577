"""DeepFool's step to the nearest of the linearised boundaries, per sample."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["deepfool_step"]


def deepfool_step(
    logits: Tensor, gradients: Tensor, reference: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`vaal_ext.ops.deepfool_step`. Computed in float64 and rounded once."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    flat = gradients.flatten(2).double() if gradients.ndim > 2 else gradients.double().unsqueeze(2)
    classes = logits.shape[1]
    outside = (candidates < 0) | (candidates >= classes)
    outside |= ((reference < 0) | (reference >= classes)).unsqueeze(1)
    own = candidates == reference.unsqueeze(1)
    f = logits.double()
    gap = f.gather(1, candidates.clamp(0, classes - 1))
    gap = gap - f.gather(1, reference.clamp(0, classes - 1).unsqueeze(1))
    peak = flat.abs().amax(dim=2)
    unit = flat / torch.where(peak == 0, torch.ones_like(peak), peak).unsqueeze(2)
    length = torch.linalg.vector_norm(unit, dim=2)
    finite = torch.isfinite(gap) & torch.isfinite(peak)
    failed = (~own & (outside | (~finite & (gap != -torch.inf)))).any(dim=1)
    distance = (gap.abs() / length) / peak
    distance = torch.where(gap == 0, torch.zeros_like(distance), distance)
    too_far = ~(distance <= torch.finfo(dtype).max)
    distance = distance.masked_fill(own | (gap == -torch.inf) | too_far, torch.inf)
    value, slot = distance.min(dim=1)
    slot = (distance == value.unsqueeze(1)).int().argmax(dim=1)  # the first of several
    pick = slot.unsqueeze(1)
    chosen = (unit / length.unsqueeze(2)).gather(1, pick.unsqueeze(2).expand(-1, 1, flat.shape[2]))
    moves = (torch.isfinite(value) & (value > 0)).unsqueeze(1)
    step = torch.where(moves, chosen.squeeze(1) * value.unsqueeze(1), torch.zeros_like(flat[:, 0]))
    step = step.masked_fill(failed.unsqueeze(1), torch.nan)
    nearest = torch.where(torch.isfinite(value) & ~failed, candidates.gather(1, pick)[:, 0], -1)
    value = value.masked_fill(failed, torch.nan)
    step = step.view(gradients[:, 0].shape).to(gradients.dtype)
    return nearest, value.to(dtype), step
