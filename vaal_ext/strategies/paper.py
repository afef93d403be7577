"""The strategies of the paper: its own, and those that it is compared with; and the margin."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch

from vaal_ext.backend import require_backend
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool.baselines import posterior_scores
from vaal_ext.pool.scores import PoolScores
from vaal_ext.scorer import LDRScorer
from vaal_ext.selection import Order, accuracy_percentile
from vaal_ext.strategies.interface import (
    QueryContext,
    Strategy,
    check_size,
    given_scores,
    smallest,
)
from vaal_ext.strategies.query import Query

__all__ = ["Entropy", "Margin", "Random", "Vaal"]


@dataclass(frozen=True)
class Random(Strategy):
    """n samples drawn uniformly: the baseline RANDOM of the paper."""

    name: ClassVar[str] = "random"

    def score(self, model: torch.nn.Module, pool: Any, context: QueryContext) -> None:
        """Nothing is scored: None."""
        return None

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        """See :meth:`vaal_ext.strategies.Strategy.pick`."""
        available = len(context.sample_index)
        check_size(n, available)
        return np.random.default_rng(context.seed).choice(available, size=n, replace=False)


@dataclass(frozen=True)
class _Posterior(Strategy):
    """Strategies that rank the pool by one number of the clean posterior."""

    backend: str = "fused"

    def __post_init__(self) -> None:
        require_backend(self.backend)

    def score(self, model: torch.nn.Module, pool: Any, context: QueryContext) -> PoolScores:
        return posterior_scores(
            model,
            pool,
            backend=self.backend,
            sample_index=torch.from_numpy(context.sample_index),
            batch_size=context.batch_size,
            progress=context.progress,
            look=context.look,
        )


@dataclass(frozen=True)
class Entropy(_Posterior):
    """The n largest entropies of the posterior: the baseline UNCERTAINTY of the paper."""

    name: ClassVar[str] = "entropy"

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        """See :meth:`vaal_ext.strategies.Strategy.pick`."""
        return smallest(-given_scores(scores).entropy, n)


@dataclass(frozen=True)
class Margin(_Posterior):
    """The n smallest gaps between the two largest posteriors."""

    name: ClassVar[str] = "margin"

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        """See :meth:`vaal_ext.strategies.Strategy.pick`."""
        return smallest(given_scores(scores).margin, n)


@dataclass(frozen=True, kw_only=True)
class Vaal(Strategy, SearchSettings):
    """Class-balanced samples upward from a percentile of the roughness (the paper's Algorithm 1).

    Settings: those of :class:`~vaal_ext.scorer.LDRScorer` and of
    :func:`~vaal_ext.selection.select`, under the same names. The percentile may be "accuracy": then
    it is :func:`~vaal_ext.selection.accuracy_percentile`, query by query. Where the context says
    how many samples will be picked, the pool is screened for them (see `above` of
    :meth:`vaal_ext.LDRScorer.score`), with method="direct" alone.
    """

    percentile: float | str = 90.0
    class_prior: Any = "uniform"
    order: Order = "ascending"

    name: ClassVar[str] = "vaal"

    def __post_init__(self) -> None:
        # Both refuse bad settings now, before a network is trained and a pool is scored.
        SearchSettings.__post_init__(self)
        self._query(1, 1, 0.5)

    def _query(self, n: int, pool_size: int, val_accuracy: float | None, seed: int = 0) -> Query:
        percentile = self.percentile
        if percentile == "accuracy":
            if val_accuracy is None:
                raise ValueError("percentile 'accuracy' needs the accuracy on a validation set")
            percentile = accuracy_percentile(val_accuracy, n, pool_size)
        elif isinstance(percentile, str):
            raise ValueError(f"percentile must be a number or 'accuracy', got {percentile!r}")
        return Query(percentile, self.class_prior, self.order, seed)

    def score(self, model: torch.nn.Module, pool: Any, context: QueryContext) -> PoolScores:
        """See :meth:`vaal_ext.strategies.Strategy.score`."""
        n, size = context.n, len(context.sample_index)
        if n is not None and not 1 <= n <= size:
            n = None  # which pick refuses
        query = self._query(n or 1, max(1, size), context.val_accuracy)
        scorer = LDRScorer(
            model,
            **{field.name: getattr(self, field.name) for field in fields(SearchSettings)},
            seed=context.seed,
            batch_size=context.batch_size,
            look=context.look,
        )
        index = torch.from_numpy(context.sample_index)
        return query.scores(scorer, pool, n, sample_index=index, progress=context.progress)

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        """See :meth:`vaal_ext.strategies.Strategy.pick`."""
        scores = given_scores(scores)
        query = self._query(n, scores.num_samples, context.val_accuracy, context.seed)
        return query.choose(scores, n, context.num_classes)
