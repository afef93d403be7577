"""Scores of a pool and a choice from them: what every adapter in this folder hands on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vaal_ext.network.state import Model
from vaal_ext.pool.scores import PoolScores
from vaal_ext.scorer import LDRScorer
from vaal_ext.selection import Order
from vaal_ext.strategies.query import Query

__all__ = ["LDRQuery"]


class LDRQuery:
    """One query of the paper's Algorithm 1, less training and labelling.

    Two kinds of index never mix: `pool_index` counts in the pool that is scored, `sample_index`
    in the data set that the pool is a part of.

    Args:
        percentile, class_prior, order: see :func:`vaal_ext.select`.
        seed: of the start directions and of order="random", 0 <= seed < 2^63.
        progress: show a bar while scoring.
        group: the torch.distributed processes that score together, see
            :meth:`vaal_ext.LDRScorer.score`. Where one process of several queries alone, it is a
            group of that process alone: ``torch.distributed.new_group([rank])``, which all
            processes make together.
        scorer: `eps` and whatever else :class:`vaal_ext.LDRScorer` takes, by name.

    Raises:
        TypeError, ValueError: a setting that does not exist, of a wrong type or out of its range.
    """

    def __init__(
        self,
        *,
        percentile: float = 90.0,
        class_prior: Any = "uniform",
        order: Order = "ascending",
        seed: int = 0,
        progress: bool = False,
        group: Any = None,
        **scorer: Any,
    ) -> None:
        self.seed = seed
        self._progress = progress
        self._group = group
        self._scorer = scorer
        # Both refuse bad settings now, before a network is trained and a pool is scored.
        LDRScorer(torch.nn.Identity(), seed=seed, **scorer)
        self._query = Query(percentile, class_prior, order, seed)

    def score(
        self, model: Model, pool: Any, sample_index: Any, n: int | None = None, **defaults: Any
    ) -> PoolScores:
        """The scores of a pool [N, ...]; see :meth:`vaal_ext.LDRScorer.score` for it and errors.

        Args:
            model: gives logits [B, C].
            sample_index: int64 [N], the place of each sample in the data set; None for arange(N).
            n: how many samples will be chosen. With method="direct" the pool is screened for them
                then, and samples that cannot be among them may have no LDR (-inf, see `above` of
                :meth:`vaal_ext.LDRScorer.score`). None: all samples are scored.
            defaults: keywords of LDRScorer where the settings leave them open.
        """
        scorer = LDRScorer(model, seed=self.seed, **(defaults | self._scorer))
        how = {"sample_index": sample_index, "progress": self._progress, "group": self._group}
        return self._query.scores(scorer, pool, n, **how)

    def choose(self, scores: PoolScores, n: int) -> np.ndarray:
        """`pool_index` int64 [n], what :func:`vaal_ext.select` picks; its errors."""
        return self._query.choose(scores, n, scores.num_classes)
