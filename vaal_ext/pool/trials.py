"""Trying out on the first samples how a pool is scored fastest: number format and batch size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from vaal_ext.pool.batch_run import Mode

__all__ = ["MIN_SAMPLES", "choose_batch_size", "choose_mode", "rank_correlation"]

# Fewer samples cannot show a rank correlation of 0.999.
MIN_SAMPLES = 256
_RANK_CORRELATION = 0.999
# A gain below this lies within the noise of a short trial.
_GAIN = 1.05
# A trial of fewer seconds is repeated: warming up, or an interruption, may have slowed it.
_SHORT = 0.25


def choose_mode(
    run: Callable[[Mode], np.ndarray], others: Iterable[Mode]
) -> tuple[Mode, dict[Mode, str]]:
    """The fastest mode that ranks the samples as plain float32 does.

    A number format that ranks them differently is not tried in a second memory format.

    Args:
        run: scores the trial's samples in a mode: float [N], the work done when it returns.
        others: the modes to try besides `Mode()`.

    Returns:
        The mode, and for each mode tried its time, or the Spearman correlation that was too low.
        Another mode than float32 is taken where it saves more than 5 % of the time.
    """
    seconds: dict[Mode, list[float]] = {}
    scores, taken = _timed(run, Mode())
    found, seconds[Mode()], refused = {Mode(): ""}, [taken], set()
    for mode in others:
        if mode.amp in refused:
            continue
        tried, taken = _timed(run, mode)
        correlation = rank_correlation(scores, tried)
        if correlation >= _RANK_CORRELATION:
            seconds[mode] = [taken]
            found[mode] = f", rank correlation {correlation:.5f}"
        else:
            refused.add(mode.amp)
            found[mode] = f"not taken: rank correlation {correlation:.3f}"
    for mode, times in seconds.items():  # once more: the first run has warmed up
        times.append(_timed(run, mode)[1])
    for mode, times in seconds.items():
        found[mode] = f"{min(times):.3g} s" + found[mode]
    fastest = min(seconds, key=lambda mode: min(seconds[mode]))
    if fastest != Mode() and min(seconds[Mode()]) < _GAIN * min(seconds[fastest]):
        fastest = Mode()
    return fastest, found


def choose_batch_size(
    run: Callable[[int], None],
    largest: int,
    growth: Callable[[], int],
    limit: int,
    *,
    first: int = 8,
) -> tuple[int, dict[int, float]]:
    """The smallest batch size within 5 % of the best rate, by doubling as long as it pays.

    Args:
        run: works on the first B samples; the work is done when it returns.
        largest: no batch above this.
        growth: bytes by which memory has grown so far at its peak.
        limit: the bytes it may grow by. A size is tried only if twice (or so) the last size's
            memory stays below.
        first: the size that is tried in any case.

    Returns:
        The batch size, and the samples per second of each size tried.
    """
    rates: dict[int, float] = {}
    size = allowed = max(1, min(first, largest))
    while size <= allowed and _still_pays(list(rates.values())):
        try:
            _, seconds = _timed(run, size)
            if seconds < _SHORT:
                seconds = min(seconds, _timed(run, size)[1])
            rates[size] = size / seconds
        except torch.OutOfMemoryError:
            break
        allowed = int(min(largest, size * limit / max(1, growth())))
        if size == largest:
            break
        size = min(2 * size, largest)
    if not rates:
        return max(1, size // 2), rates
    fit = {b: rate for b, rate in rates.items() if b <= allowed}
    best = max(fit.values(), default=0.0)
    return min(
        (s for s, rate in fit.items() if _GAIN * rate >= best), default=max(1, allowed)
    ), rates


def _still_pays(rates: list[float]) -> bool:
    """False once two doublings in a row have gained nothing."""
    return len(rates) < 3 or max(rates[-2:]) >= _GAIN * max(rates[:-2])


def _timed(run: Callable[[Any], Any], argument: Mode | int) -> tuple[Any, float]:
    """What the call gives, and its seconds."""
    start = time.perf_counter()
    result = run(argument)
    return result, time.perf_counter() - start


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two floating arrays [N], ties at their mean rank.

    0 where it is not defined: an array is constant, or the two are not finite at the same places.
    """
    finite = np.isfinite(a)
    if not finite.any() or not np.array_equal(finite, np.isfinite(b)):
        return 0.0
    x, y = (_mean_ranks(values[finite]) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale > 0 else 0.0


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[group]
