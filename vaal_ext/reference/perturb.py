"""A step of given length along a direction, per sample."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

__all__ = ["perturb"]


@overload
def perturb(
    x: Tensor, direction: Tensor, radius: float, *, return_norm: Literal[False] = False
) -> Tensor: ...
@overload
def perturb(
    x: Tensor, direction: Tensor, radius: float, *, return_norm: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def perturb(
    x: Tensor, direction: Tensor, radius: float, *, return_norm: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """See :func:`vaal_ext.ops.perturb`."""
    flat = direction.reshape(x.shape[0], -1).double() if x.numel() else x.double().flatten(1)
    peak = flat.abs().amax(dim=1, keepdim=True) if flat.numel() else flat.new_zeros(len(x), 1)
    unit = flat / torch.where(peak == 0, torch.ones_like(peak), peak)
    length = torch.linalg.vector_norm(unit, dim=1, keepdim=True)
    step = radius * (unit / torch.where(length == 0, torch.ones_like(length), length))
    out = (x.double() + step.view_as(x)).to(x.dtype)
    if return_norm:
        return out, (peak * length).squeeze(1).to(torch.promote_types(x.dtype, torch.float32))
    return out
