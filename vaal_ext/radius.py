"""How long a perturbation may be: in proportion to the samples, not one number for all data."""

from __future__ import annotations

import torch
from torch import Tensor

from vaal_ext.forward import check_input, flattened

__all__ = ["rms_length", "small_radius"]

# A fiftieth of the length of a sample. Up to a thirtieth LDR finds wrong pseudo labels as well as
# it ever does, at a tenth it is worse, at two fifths it is chance (`vaal-ext reproduce radius`).
_FRACTION = 0.02


def rms_length(x: Tensor) -> float:
    """The root mean square of the samples' L2 norms.

    Args:
        x: floating [N, ...], N >= 1, finite, in the units of the network's input.

    Returns:
        the length, in the same units, >= 0.

    Raises:
        TypeError: x is no floating tensor. ValueError: no sample, or one that is not finite.
    """
    check_input(x)
    if len(x) == 0:
        raise ValueError("x must hold at least one sample, got none")
    norms = torch.linalg.vector_norm(flattened(x.detach()), dim=1, dtype=torch.float64)
    length = float(norms.square().mean().sqrt())
    if not length < float("inf"):
        raise ValueError("x must be finite: the length of a sample is not")
    return length


def small_radius(x: Tensor) -> float:
    """A radius eps for :func:`vaal_ext.ldr_scores` that is small beside the samples.

    0.02 times :func:`rms_length`; a tenth of it serves as xi. LDR with a large radius saturates: it
    is largest where the network is sure, and right. The paper's 2 (section III.A) is half the
    length of a sample of scikit-learn's digits and a fifth of one of MNIST, pixels in [0, 1].

    Args, Raises:
        as of :func:`rms_length`; some hundred samples will do. ValueError also if all are 0.

    Returns:
        eps > 0, in the units of the network's input.
    """
    length = rms_length(x)
    if length == 0:
        raise ValueError("x must not be 0 throughout: it has no length to measure a radius by")
    return _FRACTION * length
