"""A step of given length along a random direction that belongs to the sample."""

from __future__ import annotations

import torch
from torch import Tensor

from vaal_ext.checks import require_int, require_positive, require_sample_index

from ._checks import check_samples, refuse_gradient
from ._transforms import not_differentiable

__all__ = ["random_perturb"]

_call = not_differentiable("random_perturb")


def random_perturb(x: Tensor, radius: float, *, seed: int, sample_index: Tensor) -> Tensor:
    """x + radius · n/‖n‖₂, n standard normal: where the power iteration starts (section III-A).

    n depends on (seed, sample_index[i], element) alone (Philox4x32-10, Box-Muller): a sample starts
    from the same direction whatever the batch, the order, the shard or the device. The normals are
    never stored. Elements are numbered in the logical (contiguous) order of x.

    Args:
        x: [B, ...]. Any strides; the result keeps them.
        radius: step length >= 0, in the units of x.
        seed: any integer of 64 bits.
        sample_index: int64[B] on x's device, the samples' numbers in the dataset.

    Returns:
        A tensor like x.

    Raises:
        TypeError: x not floating, sample_index not int64, seed not an integer.
        ValueError: a shape, device, radius or seed that does not fit.
        RuntimeError: x requires grad while grad mode is on, or carries a tangent of
            forward mode (this op has no derivative).
    """
    check_samples("x", x)
    require_positive("radius", radius, or_zero=True)
    refuse_gradient("random_perturb", x)
    require_int("seed", seed, -(2**63), 2**63 - 1)
    require_sample_index(sample_index, x)
    result: Tensor = _call(x, float(radius), int(seed), sample_index)
    return result


@torch.library.register_fake("vaal::random_perturb")
def _(x: Tensor, radius: float, seed: int, sample_index: Tensor) -> Tensor:
    return torch.empty_like(x)
