"""One query of the paper's Algorithm 1: it scores what the choice needs, and chooses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vaal_ext.pool.batches import pool_size
from vaal_ext.pool.scores import PoolScores
from vaal_ext.scorer import LDRScorer
from vaal_ext.selection import Order, select

__all__ = ["Query"]


@dataclass(frozen=True)
class Query:
    """How samples are chosen from a pool; its settings are checked when it is made.

    Attributes:
        percentile, class_prior, order, seed: see :func:`vaal_ext.select`.

    Raises:
        TypeError, ValueError: see there.
    """

    percentile: float = 90.0
    class_prior: Any = "uniform"
    order: Order = "ascending"
    seed: int = 0

    def __post_init__(self) -> None:
        one = np.ones(1)
        select(one, [0], 1, posterior_mean=one, **self._selection)

    @property
    def _selection(self) -> dict[str, Any]:
        names = ("percentile", "class_prior", "order", "seed")
        return {name: getattr(self, name) for name in names}

    def scores(self, scorer: LDRScorer, pool: Any, n: int | None, **how: Any) -> PoolScores:
        """The scores from which :meth:`choose` picks n samples; of all samples where n is None.

        With method="direct" the pool is screened for the samples that can be picked. The paper's
        searches score the whole pool, as they always did, so that runs begun with them go on alike.

        Args:
            scorer: what scores, whose settings say how r is found.
            pool, how: see :meth:`vaal_ext.LDRScorer.score`, for errors too.
            n: where it is more than the pool has, all are scored; `choose` refuses it then.
        """
        score, size = partial(scorer.score, pool, **how), pool_size(pool)
        if scorer.method != "direct" or n is None or not 1 <= n <= size:
            return score()
        # Where fewer than n rank above the percentile, the choice takes others from below it.
        lowest = 100.0 * (size - n) / size
        scores = score(above=min(self.percentile, lowest))
        ranked, left_out = np.count_nonzero(~np.isnan(scores.ldr)), scores.left_out.sum()
        if left_out and ranked - left_out < n:  # some of the samples could not be read
            scores = score()
        return scores

    def choose(self, scores: PoolScores, n: int, num_classes: int) -> np.ndarray:
        """What :func:`vaal_ext.select` picks: positions in the pool, int64 [n]; its errors."""
        return select(
            scores.ldr,
            scores.pseudo_label,
            n,
            **self._selection,
            num_classes=num_classes,
            posterior_mean=scores.posterior_mean,
        )
