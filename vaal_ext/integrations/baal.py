"""baal 2.x: an active-learning loop that queries by LDR."""

from __future__ import annotations

from typing import Any

import numpy as np
from baal.active import ActiveLearningDataset, ActiveLearningLoop
from baal.active.heuristics import Precomputed
from baal.modelwrapper import ModelWrapper
from torch.utils.data import Subset

from vaal_ext.integrations.query import LDRQuery
from vaal_ext.network.state import Model
from vaal_ext.selection import percentile_rank

__all__ = ["LDRLoop"]


class LDRLoop(ActiveLearningLoop):
    """baal's ActiveLearningLoop with LDR in the place of a heuristic.

    baal's heuristics see predictions, made without gradients, so LDR cannot be one. It comes in as
    what the loop takes for probabilities, already ranked: the chosen samples first, so that the
    balance of the classes survives ``ranks[:query_size]``.

    Args:
        dataset: the ActiveLearningDataset; its samples are x or (x, y, ...), x of one shape.
        model: what gives logits [B, C], or the ModelWrapper around it.
        query_size: samples to label per step.
        max_sample: score that many samples of the pool, drawn by NumPy's global generator; -1 for
            all.
        uncertainty_folder: where baal writes what :meth:`priorities` gives, or None.
        settings: those of :class:`~vaal_ext.integrations.query.LDRQuery`.

    Raises:
        TypeError, ValueError: see there.
    """

    def __init__(
        self,
        dataset: ActiveLearningDataset,
        model: Model | ModelWrapper,
        query_size: int = 1,
        max_sample: int = -1,
        uncertainty_folder: str | None = None,
        **settings: Any,
    ) -> None:
        self._model = model.model if isinstance(model, ModelWrapper) else model
        self._query = LDRQuery(**settings)
        super().__init__(
            dataset,
            self.priorities,
            Precomputed(reverse=True),
            query_size=query_size,
            max_sample=max_sample,
            uncertainty_folder=uncertainty_folder,
        )

    def priorities(self, pool: Any) -> np.ndarray:
        """The order in which baal is to take the samples, as numbers, the largest first.

        Args:
            pool: the Dataset that baal hands over: ``dataset.pool``, or a Subset of it.

        Returns:
            float64 [N]. The n samples that :func:`vaal_ext.select` picks have n + 1 to 2, in their
            order; the others their percentile rank of LDR in [0, 1], 0 where they have no score.
            Those that the screen left out share the largest rank that one of them can have; with an
            uncertainty_folder, which keeps the ranks, nothing is left out.

        Raises:
            ValueError: a pool of which it is not known where its samples lie in the data set.
        """
        sample_index = np.flatnonzero(~self.dataset.labelled)
        if isinstance(pool, Subset):
            sample_index = sample_index[np.asarray(pool.indices)]
        elif len(pool) != len(sample_index):
            raise ValueError(
                f"the pool must be dataset.pool ({len(sample_index)} samples) or a Subset of it, "
                f"got {len(pool)} samples"
            )
        n = min(self.query_size, len(pool))
        needed = None if self.uncertainty_folder else n
        scores = self._query.score(self._model, pool, sample_index, needed)
        priorities: np.ndarray = np.nan_to_num(percentile_rank(scores.ldr)) / 100
        n = min(n, np.count_nonzero(~np.isnan(scores.ldr)))
        pool_index = self._query.choose(scores, n)
        priorities[pool_index] = np.arange(n + 1, 1, -1)
        return priorities
