"""A step of given length along a direction, per sample."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from vaal_ext.checks import require_positive

from ._checks import (
    arithmetic_dtype,
    check_alike,
    check_samples,
    check_tensor,
    refuse_gradient,
)
from ._transforms import not_differentiable

__all__ = ["perturb"]

_call = not_differentiable("perturb")


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
    """x + radius · d/‖d‖₂, with the norm taken over each sample (section III-A, the update of u).

    Directions of every size normalise alike, from subnormal numbers to the largest. A sample whose
    direction is zero stays as it is; one that is not finite becomes NaN.

    Args:
        x: [B, ...]. Any strides; the result keeps them (channels_last stays channels_last).
        direction: like x in shape, dtype and device.
        radius: step length >= 0, in the units of x.
        return_norm: also return ‖d‖₂ as A[B]; 0 marks the samples that did not move.

    Raises:
        TypeError: not tensors, or not one floating dtype.
        ValueError: shapes or devices that differ, a negative or infinite radius.
        RuntimeError: an argument requires grad while grad mode is on, or carries a tangent of
            forward mode (this op has no derivative).
    """
    check_samples("x", x)
    check_tensor("direction", direction)
    check_alike("x", x, "direction", direction)
    require_positive("radius", radius, or_zero=True)
    refuse_gradient("perturb", x, direction)
    out, norm = _call(x, direction, float(radius))
    return (out, norm) if return_norm else out


@torch.library.register_fake("vaal::perturb")
def _(x: Tensor, direction: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(x.shape[0], dtype=arithmetic_dtype(x))
