"""Percentile threshold, class quotas and order: which samples of a pool to query.

Pure functions of arrays, after the paper's section III.B and Algorithm 1. They take numpy arrays,
sequences or torch CPU tensors, give numpy arrays, and draw nothing unless ``order="random"``.
"""

from __future__ import annotations

import numbers
from typing import Any, Literal, get_args

import numpy as np
import torch

from vaal_ext.checks import require_int

__all__ = [
    "accuracy_percentile",
    "candidate_count",
    "class_quotas",
    "percentile_rank",
    "require_percentile",
    "select",
]

Order = Literal["ascending", "descending", "random"]
ORDERS = get_args(Order)

# Remainders closer than this are ties: n * prior carries the rounding of decimals such as 0.3.
_QUOTA_DIGITS = 9


def percentile_rank(scores: Any, positions: Any = None) -> np.ndarray:
    """Percentile rank of scores in their pool: 100 * #{j : s_j <= s_i} / N.

    Args:
        scores: real numbers [N]; larger means rougher. NaN marks a sample that has no score: it
            counts neither in N nor in the rank of another. Infinities are ordinary extreme values.
        positions: integers [M], the samples whose ranks are wanted; by default all.

    Returns:
        float64 [N] or [M] in (0, 100]; equal scores share the higher rank; NaN where the score is
        NaN.

    Raises:
        TypeError: scores hold no real numbers.
        ValueError: scores not of one dimension.
        IndexError: a position that is none of the pool's.
    """
    values = _array("scores", scores)
    in_order = np.sort(values[~np.isnan(values)])
    if positions is not None:
        values = values[positions]
    scored = ~np.isnan(values)
    rank = np.full(values.shape, np.nan)
    at_most = np.searchsorted(in_order, values[scored], side="right")
    rank[scored] = 100.0 * at_most / max(in_order.size, 1)
    return rank


def candidate_count(percentile: float, size: int) -> int:
    """The place in the ascending order, counted from 1, from which on ranks exceed the percentile.

    A sample is a candidate if its score is at least the one at that place, so the candidates are
    found without the rank of every sample.

    Args:
        percentile: in [0, 100); size: number of samples with a score, at least 1.

    Returns:
        the place, 1 to `size`; no rounding makes it differ from :func:`percentile_rank`.
    """
    place = max(1, int(percentile * size / 100) - 1)  # not too far, however this is rounded
    while not 100.0 * place / size > percentile:
        place += 1
    return place


def accuracy_percentile(accuracy: float, n: int, pool_size: int) -> float:
    """A threshold (PRT) that rises with the network: 100 times its accuracy.

    The share of the pool that ranks above it is the share of pseudo labels that are likely to be
    wrong. With a fixed threshold a network that is right on 97 % of the pool would be asked about
    samples that it knows. The percentile is lowered where fewer than n candidates would be left.

    Args:
        accuracy: on data that were not trained on, in [0, 1].
        n: samples to be queried, >= 1, and pool_size, >= n.

    Returns:
        the percentile, in [0, 100).

    Raises:
        TypeError, ValueError: a number of another kind, or out of its range.
    """
    require_int("n", n, 1)
    require_int("pool_size", pool_size, n)
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy must be in [0, 1], got {accuracy}")
    # The second is the rank of the highest sample that is not to be a candidate, to the bit.
    return min(100.0 * accuracy, 100.0 * (pool_size - n) / pool_size)


def class_quotas(n: int, prior: Any) -> np.ndarray:
    """Share n queries among C classes in proportion to a prior, by largest remainder.

    Args:
        n: number of queries, >= 0.
        prior: weights [C], finite, not negative, not all zero. They need not sum to one.

    Returns:
        int64 [C] that sums to n. Equal remainders favour the smaller class.

    Raises:
        TypeError: n is no int, or the prior holds no numbers.
        ValueError: n below 0, or a prior that is none.
    """
    require_int("n", n, 0)
    weights = _array("prior", prior)
    if weights.size == 0 or not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise ValueError(f"prior must hold finite weights >= 0, one per class, got {weights}")
    largest = weights.max()
    if largest <= 0:
        raise ValueError("prior must have a class with a weight above 0, all are 0")
    weights = weights / largest
    shares = np.round(n * weights / weights.sum(), _QUOTA_DIGITS)
    quotas: np.ndarray = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(-np.round(shares - quotas, _QUOTA_DIGITS), kind="stable")
    quotas[by_remainder[: n - int(quotas.sum())]] += 1
    return quotas


def select(
    scores: Any,
    pseudo_labels: Any,
    n: int,
    *,
    percentile: float = 90.0,
    class_prior: str | Any | None = "uniform",
    order: Order = "ascending",
    num_classes: int | None = None,
    posterior_mean: Any = None,
    seed: int = 0,
) -> np.ndarray:
    """Choose n samples to query: above the percentile threshold, balanced over pseudo labels.

    The candidates are the samples whose :func:`percentile_rank` is above ``percentile``. Every
    class gives its quota of them, in ``order``. What short classes leave open is filled first with
    the other candidates in ``order``, then with the samples below the threshold, downward from it.
    Ties in the score go to the smaller pool index.

    Args:
        scores: roughness of each sample of the pool, real [N]. NaN: the sample is left out. -inf:
            all that is known of the sample is that it ranks below the others (see `above` of
            :meth:`vaal_ext.LDRScorer.score`).
        pseudo_labels: argmax of each posterior, integers [N] in [0, num_classes).
        n: number of samples to choose, 1 <= n <= the number of samples with a score.
        percentile: the paper's PRT, 0 <= percentile < 100. With 0 every sample is a candidate;
            100 is refused, because nothing ranks above it.
        class_prior: share of each class: ``"uniform"``; ``"predicted"`` (``posterior_mean``);
            weights [num_classes]; or None, no balancing (the paper's Figures 9 and 10).
        order: ``"ascending"`` (upward from the threshold, the paper's), ``"descending"`` (from the
            roughest down) or ``"random"``.
        num_classes: by default the length of the prior, else the largest pseudo label plus one.
        posterior_mean: mean posterior of the pool [num_classes], for ``class_prior="predicted"``.
        seed: for ``order="random"``.

    Returns:
        int64 [n], distinct positions in the pool, in the order they were picked: first the quotas
        of the classes (the classes interleaved, in ``order``), then the two kinds of fillers.

    Raises:
        TypeError: n is no int, percentile no number, scores or weights hold no real numbers,
            pseudo_labels no integers.
        ValueError: naming what was expected and what came; also where the percentile or n needs
            scores that are -inf.
    """
    require_int("n", n, 1)
    values = _array("scores", scores)
    labels = _array("pseudo_labels", pseudo_labels, whole=True)
    if labels.shape != values.shape:
        raise ValueError(
            f"scores and pseudo_labels must have one length, got {values.size} and {labels.size}"
        )
    percentile = require_percentile("percentile", percentile)
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    scored = ~np.isnan(values)
    available = int(scored.sum())
    if n > available:
        raise ValueError(f"n must be at most the {available} samples with a score, got {n}")
    prior = _prior_weights(class_prior, labels[scored], num_classes, posterior_mean)

    place = candidate_count(percentile, available) - 1
    threshold = np.partition(values[scored], place)[place]
    above = values >= threshold  # False where NaN
    candidates = np.flatnonzero(above)
    known = available - int(np.count_nonzero(np.isneginf(values)))
    if known < min(available, max(n, available - place)):
        lowest = min(percentile, 100.0 * (available - n) / available)
        raise ValueError(
            f"percentile {percentile:g} and n = {n} need more than the {known} largest scores of "
            f"{available}: the others are -inf, as a screen for a higher percentile left them. "
            f"Score the pool with above={lowest:g} or less, or without a screen"
        )
    if order == "random":
        candidates = np.random.default_rng(seed).permutation(candidates)
    else:
        key = values[candidates] if order == "ascending" else -values[candidates]
        candidates = candidates[np.argsort(key, kind="stable")]
    below = np.zeros(0, dtype=np.int64)
    if n > candidates.size:
        below = np.flatnonzero(scored & ~above)
        below = below[np.argsort(-values[below], kind="stable")]

    if prior is None:
        by_quota = np.zeros(candidates.size, dtype=bool)
    else:
        classes = labels[candidates]
        by_quota = _rank_within_class(classes) < class_quotas(n, prior)[classes]
    queue = np.concatenate([candidates[by_quota], candidates[~by_quota], below])
    return queue[:n].astype(np.int64)


def _rank_within_class(classes: np.ndarray) -> np.ndarray:
    """How many earlier entries have the same class, int64 [M]."""
    grouped = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank = np.empty(classes.size, dtype=np.int64)
    rank[grouped] = np.arange(classes.size) - starts
    return rank


def _prior_weights(
    class_prior: Any, labels: np.ndarray, num_classes: int | None, posterior_mean: Any
) -> np.ndarray | None:
    """Weights [num_classes] or None for no balancing; labels are those of the scored samples."""
    prior: np.ndarray | None = None
    if isinstance(class_prior, str):
        if class_prior == "predicted":
            if posterior_mean is None:
                raise ValueError("class_prior='predicted' needs posterior_mean, got None")
            prior = _array("posterior_mean", posterior_mean)
        elif class_prior != "uniform":
            raise ValueError(
                "class_prior must be 'uniform', 'predicted', one weight per class or None, "
                f"got {class_prior!r}"
            )
    elif class_prior is not None:
        prior = _array("class_prior", class_prior)
    if num_classes is not None:
        require_int("num_classes", num_classes, 1)
        if prior is not None and prior.size != num_classes:
            raise ValueError(
                f"the class prior must have one weight for each of the {num_classes} classes, "
                f"got {prior.size}"
            )
    else:
        num_classes = int(labels.max()) + 1 if prior is None else prior.size
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"pseudo_labels must be in [0, {num_classes}), got {labels.min()} to {labels.max()}"
        )
    if class_prior is None:
        return None
    return np.ones(num_classes) if prior is None else prior


def require_percentile(name: str, percentile: Any) -> float:
    """The percentile as a float; TypeError where it is no number, ValueError outside [0, 100)."""
    if isinstance(percentile, bool) or not isinstance(percentile, numbers.Real):
        raise TypeError(f"{name} must be a number, got {percentile!r}")
    if percentile == 100:
        raise ValueError(f"{name} must be below 100: nothing ranks above it")
    value = float(percentile)
    if not 0 <= value < 100:
        raise ValueError(f"{name} must be in [0, 100), got {percentile}")
    return value


def _array(name: str, values: Any, *, whole: bool = False) -> np.ndarray:
    """Real numbers as float64 [N], or with `whole` integers as int64 [N]."""
    if isinstance(values, torch.Tensor):
        if values.device.type != "cpu":
            raise TypeError(f"{name} must be an array or a CPU tensor, got one on {values.device}")
        values = values.detach()
        values = values.double().numpy() if values.is_floating_point() else values.numpy()
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {array.shape}")
    if array.size and array.dtype.kind not in ("iu" if whole else "iuf"):
        wanted = "integers" if whole else "real numbers"
        raise TypeError(f"{name} must hold {wanted}, got dtype {array.dtype}")
    return array.astype(np.int64 if whole else np.float64)
