"""How long a perturbation may be: in proportion to the samples, not one number for all data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vaal_ext.network.logits import check_input, flattened
from vaal_ext.network.pixels import PixelScale
from vaal_ext.pool.batches import pool_size, spread_samples

__all__ = ["lengths_for", "radius_of_all", "rms_length", "small_radius"]

# A fiftieth of the length of a sample. Up to a thirtieth LDR finds wrong pseudo labels as well as
# it ever does, at a tenth it is worse, at two fifths it is chance (`vaal-ext reproduce radius`).
_FRACTION = 0.02

# Samples read of a pool: the standard error of their mean length is 1/16 of the lengths' spread.
_MOST_SAMPLES = 256

# Samples of a data set whose squares, which take memory, are held at a time.
_AT_A_TIME = 1024


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


def small_radius(pool: Any, *, normalize: Any = None) -> float:
    """A radius eps for :func:`vaal_ext.ldr_scores` that is small beside the samples.

    0.02 times :func:`rms_length`; a tenth of it serves as xi. LDR with a large radius saturates: it
    is largest where the network is sure, and right. The paper's 2 (section III.A) is half the
    length of a sample of scikit-learn's digits and a fifth of one of MNIST, pixels in [0, 1].

    Args:
        pool: what :meth:`vaal_ext.LDRScorer.score` takes: a tensor or an array [N, ...], a
            map-style Dataset of x or (x, y, ...), or a DataLoader of one. 256 samples spread evenly
            over it are read, or all where there are no more; the same ones in every call. A
            loader's sampler is not asked.
        normalize: as of :class:`vaal_ext.LDRScorer`, for pools of uint8 images.

    Returns:
        eps > 0, in the units of the network's input.

    Raises:
        TypeError: a pool of another kind, samples that are not floating, or not uint8 with
            `normalize`. ValueError: no sample, one that is not finite, or all are 0.
    """
    if pool_size(pool) == 0:
        raise ValueError("the pool must hold at least one sample, got none")
    with torch.random.fork_rng(devices=[]):  # a DataLoader draws a number whenever it is read
        x = spread_samples(pool, _MOST_SAMPLES)
    if normalize is not None:
        pixels = PixelScale(normalize)
        pixels.check(x)
        x = pixels.input(x)
    return _fraction_of(rms_length(x))


def radius_of_all(parts: Iterable[Tensor]) -> float:
    """:func:`small_radius` of all samples in `parts`, floating [N, ...] each, in three digits.

    `parts` are floating [N, ...]; however a data set is cut into them, its radius is the same. For
    errors see there.
    """
    squares, count = 0.0, 0
    for part in parts:
        for x in part.split(_AT_A_TIME):
            squares += len(x) * rms_length(x) ** 2
            count += len(x)
    return _three_digits(_fraction_of((squares / count) ** 0.5))


def lengths_for(
    pool: Any, eps: float | None, xi: float | None, *, normalize: Any = None
) -> tuple[float, float]:
    """eps and xi > 0 for a pool of one's own. Where eps is None it is :func:`small_radius` of the
    pool, and where xi is None it is a tenth of eps.

    What is chosen here is rounded to three digits, so that a person can type it again and every
    machine chooses the same.

    Args:
        pool, normalize: see :func:`small_radius`; not read where eps is given.
        eps, xi: > 0 in the units of the network's input, or None.

    Raises:
        TypeError, ValueError: see :func:`small_radius`.
    """
    if eps is None:
        eps = _three_digits(small_radius(pool, normalize=normalize))
    return eps, _three_digits(eps / 10) if xi is None else xi


def _fraction_of(length: float) -> float:
    if length == 0:
        raise ValueError("the samples must not be 0 throughout: there is no length to measure by")
    return _FRACTION * length


def _three_digits(length: float) -> float:
    return float(f"{length:.3g}")
