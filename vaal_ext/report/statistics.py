"""How strategies are compared over seeds: pure functions of arrays, SciPy where it has them.

The first axis of every array is the seed. Runs of one seed share their split, their initial labels
and their first weights, so strategies are compared seed by seed: differences are taken first, then
averaged, resampled and ranked. Every result is the same, to the last bit, in whatever order the
seeds stand.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, stats

__all__ = [
    "MIN_PAIRS",
    "area_under_curve",
    "holm",
    "mean_and_interval",
    "paired_difference",
    "signed_rank_p",
    "win_matrix",
]

# The least two-sided p of n signed ranks is 2^(1-n), all signs alike: 0.03 for six, 0.06 for five.
MIN_PAIRS = 6

# Draws with replacement, the same in every call: SciPy's default number, for 95% intervals.
_RESAMPLES = 9999
_RESAMPLING_SEED = 0

# Accuracies are quotients of integers, and so differences that are equal on paper differ in their
# last bits, by less than 1e-15. Two that do differ on paper do so by far more than this: a test
# set of N samples and a budget of B labels make areas that are multiples of 1 / (2 N B).
_DECIMALS = 12


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
        raise ValueError(f"{name} must be finite, but {bad} of {values.size} values are not")
    return values


def area_under_curve(labels: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """The mean accuracy over the budget: the trapezoids under the curve over the range of labels.

    Args:
        labels: [L], numbers of labels, increasing, L >= 2.
        accuracy: float [..., L], in 0..1.

    Returns:
        float64 [...], in 0..1.

    Raises:
        ValueError: fewer than two numbers of labels, labels that do not increase, NaN.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) < 2 or (np.diff(labels) <= 0).any():
        raise ValueError(f"labels must be two or more increasing numbers, got {labels.tolist()}")
    accuracy = _finite("accuracy", accuracy)
    area: np.ndarray = integrate.trapezoid(accuracy, labels, axis=-1)
    return area / float(labels[-1] - labels[0])


def mean_and_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds and its 95% bootstrap interval (Efron's percentile interval).

    Given differences of paired runs, this is the paired bootstrap: seeds are drawn, and both runs
    of a seed come along. With few seeds the interval is too narrow, as percentile intervals are:
    tried on normal values, it held the true mean in 74 % of 1500 cases with 3 seeds, in 83 % with
    5, in 91 % with 10 and in 92 % with 20. Its ends are known as well as 9999 draws tell them, so
    that those of -values differ from their mirror image by about a hundredth of the width.

    Args:
        values: float [S, ...], one row for each seed, S >= 1.

    Returns:
        mean, low, high, each float64 [...]; low and high are NaN for a single seed.

    Raises:
        ValueError: no seed, or NaN.
    """
    values = _finite("values", values)
    if not len(values):
        raise ValueError("values must have a row for at least one seed, got none")
    # The order of the seeds is not to matter, and neither sums nor draws would forget it.
    values = np.sort(values, axis=0)
    mean = values.mean(axis=0)
    if len(values) == 1:
        return mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan)
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(_RESAMPLING_SEED),
    )
    return mean, result.confidence_interval.low, result.confidence_interval.high


def paired_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """first - second, float64 [S, ...] as both are, seed by seed.

    What is equal on paper is equal, and zero is zero.

    Raises:
        ValueError: NaN, or shapes that differ.
    """
    first, second = _finite("first", first), _finite("second", second)
    if first.shape != second.shape:
        raise ValueError(f"the two must have one shape, got {first.shape} and {second.shape}")
    difference: np.ndarray = np.round(first - second, _DECIMALS) + 0.0  # no -0.0
    return difference


def signed_rank_p(difference: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that paired differences are centred on zero.

    Zeros are left out, as Wilcoxon did. The distribution is exact for up to 50 other pairs without
    ties among their sizes, and with ties for up to 13; beyond, it is the normal approximation with
    its correction for ties (``scipy.stats.wilcoxon``).

    Args:
        difference: float [S], from :func:`paired_difference`.

    Returns:
        p, or NaN where fewer than ``MIN_PAIRS`` pairs differ: no outcome of so few has p < 0.05.
    """
    difference = _finite("difference", difference)
    difference = np.sort(difference[difference != 0])
    if len(difference) < MIN_PAIRS:
        return math.nan
    return float(stats.wilcoxon(difference, method="auto").pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number by Holm's step-down method (Holm, 1979).

    The k-th smallest of m is multiplied by m - k + 1, is at least what the one before it became,
    and at most 1. SciPy has no Holm.

    Args:
        p: float [m], in 0..1; NaN where a test could not reject. Such a test counts in m, as one
            that does not reject.

    Returns:
        float64 [m], in the order of `p`, NaN where it is.

    Raises:
        ValueError: a value outside 0..1.
    """
    p = np.asarray(p, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p must lie in 0..1, got {p.tolist()}")
    order = np.argsort(p)  # NaN last
    stepped = np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted


def win_matrix(accuracy: np.ndarray) -> np.ndarray:
    """The share of seeds and rounds in which one strategy is more accurate than another.

    Args:
        accuracy: float [S, K, L], by seed, strategy and round, S and L >= 1.

    Returns:
        float64 [K, K]: how often the row beats the column. A tie counts for neither, so that the
        matrix plus its transpose is 1 less the share of ties; the diagonal is 0.

    Raises:
        ValueError: no seed or no round, or NaN.
    """
    accuracy = _finite("accuracy", accuracy)
    if accuracy.ndim != 3 or not accuracy.size:
        raise ValueError(f"accuracy must be [seeds, strategies, rounds], got {accuracy.shape}")
    wins = accuracy[:, :, None] > accuracy[:, None, :]
    share: np.ndarray = wins.mean(axis=(0, 3))
    return share
