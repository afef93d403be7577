"""The LDR of the pool that a run's last query chose from: which samples, and how it is binned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaal_ext.pool.scores import PoolScores
from vaal_ext.report.runs import Run
from vaal_ext.selection import percentile_rank

__all__ = ["LEAST", "LDRBins", "ScoredQuery", "ldr_bins", "scored_query"]

LEAST = 1e-12  # in nats; LDR below it (zero included) stands in the leftmost bin


class ScoredQuery(NamedTuple):
    """A query and the pool it chose from.

    Attributes:
        number: of the query, from 1.
        ldr: float32 [N], in nats; no NaN; -inf where the screen left a sample out.
        queried: bool [N], the samples that were chosen; none where the run was stopped between
            the scores and the query made from them.
        percentile: its threshold (PRT), in percent of the pool.
    """

    number: int
    ldr: np.ndarray
    queried: np.ndarray
    percentile: float


def scored_query(run: Run, scores: PoolScores) -> ScoredQuery:
    """The query that these scores of a run's folder were computed for."""
    scored = ~np.isnan(scores.ldr)
    number, query = list(run.queries().items())[-1]
    queried = np.isin(scores.index, [index for index, _ in query])
    if not queried.any():
        number += 1
    percentile = run.percentile_of_query(number, len(scores.ldr))
    return ScoredQuery(number, scores.ldr[scored], queried[scored], percentile)


class LDRBins(NamedTuple):
    """LDR on a logarithmic axis, its samples in three groups.

    Attributes:
        threshold: the smallest LDR of a candidate, in nats.
        left_out: how many samples the screen left out, which have no LDR.
        edges: float64 [B + 1] of the bins, in nats; the threshold is one of them, so that no bin
            holds samples of both sides.
        groups: float64 [n] each, at least ``LEAST``: the LDR of the samples below the threshold,
            of the candidates that were not queried, and of those queried.
    """

    threshold: float
    left_out: int
    edges: np.ndarray
    groups: tuple[np.ndarray, np.ndarray, np.ndarray]


def ldr_bins(ldr: np.ndarray, queried: np.ndarray, percentile: float) -> LDRBins:
    """The bins for `ldr` float [N] (no NaN, at least one finite), `queried` bool [N] and a
    percentile in 0..100."""
    candidate = percentile_rank(ldr) > percentile
    threshold = float(ldr[candidate].min()) if candidate.any() else float(ldr.max())
    known = np.isfinite(ldr)
    left_out = np.count_nonzero(~known)
    ldr, candidate, queried = ldr[known], candidate[known], queried[known]
    shown, edge = np.maximum(ldr.astype(np.float64), LEAST), max(threshold, LEAST)
    bins = np.clip(3 * len(shown) ** (1 / 3), 20, 80)
    width = max(np.log(shown.max() / shown.min()) / bins, 0.01)
    first, last = np.log(np.array([shown.min(), shown.max()]) / edge) / width
    edges = edge * np.exp(width * np.arange(np.floor(first - 1e-9), np.floor(last) + 2))
    groups = shown[~candidate & ~queried], shown[candidate & ~queried], shown[queried]
    return LDRBins(threshold, int(left_out), edges, groups)
