"""Query strategies behind one interface: score the pool, then pick from the scores.

A pool is a tensor of unlabelled samples. Two kinds of index never mix: ``pool_index`` counts in
the pool as it is now, ``sample_index`` counts in the data set (it keys the start vector of the
power iteration and is what :class:`~vaal_ext.pool.scores.PoolScores` calls ``index``).

To add a strategy, subclass :class:`Strategy` as a frozen dataclass whose fields are its settings,
and enter it in ``STRATEGIES``.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vaal_ext.backend import require_backend
from vaal_ext.network.state import home_device
from vaal_ext.perturbation.deepfool import DeepFool, deepfool
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool.scores import PoolScores
from vaal_ext.query import Query
from vaal_ext.scorer import LDRScorer, deepfool_scores, posterior_scores
from vaal_ext.selection import Order, accuracy_percentile

__all__ = [
    "STRATEGIES",
    "Dfal",
    "Entropy",
    "Margin",
    "QueryContext",
    "Random",
    "Strategy",
    "Vaal",
    "make_strategy",
    "parse_strategy",
    "strategy_named",
]


@dataclass(frozen=True)
class QueryContext:
    """What a query may know besides the model and the pool.

    ``sample_index`` is the index in the data set of each pool sample, int64 [N]; ``seed`` is the
    only source of randomness; ``val_accuracy``, in 0..1, is that of the network on the validation
    set. The pool is scored ``batch_size`` samples at a time on the device of the model, with a bar
    if ``progress``. ``n`` is how many samples will be picked, or None where that is not known when
    the pool is scored: a strategy that knows it need not score what cannot be picked. With ``look``
    False the scoring does not first check the network on a few samples, see
    :class:`vaal_ext.LDRScorer`.
    """

    sample_index: np.ndarray
    num_classes: int
    seed: int
    val_accuracy: float | None = None
    batch_size: int = 256
    progress: bool = False
    n: int | None = None
    look: bool = True


@dataclass(frozen=True)
class Strategy(abc.ABC):
    """Chooses which samples of a pool to label next."""

    name: ClassVar[str]

    @abc.abstractmethod
    def score(self, model: torch.nn.Module, pool: Any, context: QueryContext) -> PoolScores | None:
        """The scores of a pool that :meth:`pick` needs; None if it needs none.

        The pool is whatever :meth:`vaal_ext.LDRScorer.score` takes: a floating tensor [N, ...], an
        array, a Dataset or a DataLoader.
        """

    @abc.abstractmethod
    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        """``pool_index`` int64 [n], distinct. ValueError if the pool has fewer than n to give."""

    def make_twins(
        self, model: torch.nn.Module, queried: Tensor, context: QueryContext
    ) -> tuple[Tensor, Tensor] | None:
        """More samples to train on, made from the queried ones [n, ...] and with their labels.

        They are made with the model that queried: the samples, float32 [T, ...] on the CPU, and for
        each the place in `queried` of the sample whose label it has, int64 [T] on the CPU. None
        where the strategy makes none.
        """
        return None


@dataclass(frozen=True)
class Random(Strategy):
    """n samples drawn uniformly: the baseline RANDOM of the paper."""

    name: ClassVar[str] = "random"

    def score(self, model: torch.nn.Module, pool: Any, context: QueryContext) -> None:
        return None

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        available = len(context.sample_index)
        _check_size(n, available)
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
        return _smallest(-_given(scores).entropy, n)


@dataclass(frozen=True)
class Margin(_Posterior):
    """The n smallest gaps between the two largest posteriors."""

    name: ClassVar[str] = "margin"

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        return _smallest(_given(scores).margin, n)


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
        scores = _given(scores)
        query = self._query(n, scores.num_samples, context.val_accuracy, context.seed)
        return query.choose(scores, n, context.num_classes)


@dataclass(frozen=True)
class Dfal(Strategy):
    """The n samples nearest to a decision boundary, by DeepFool (DFAL, Ducoffe and Precioso 2018).

    As there, the adversarial twin of each queried sample, x + r with the overshoot, joins the
    training set with the label of its original, unless `twins` is False; a sample from which
    DeepFool reached no other class has none. The other settings are those of
    :func:`~vaal_ext.perturbation.deepfool.deepfool`.
    """

    overshoot: float = 0.02
    max_iter: int = 50
    num_candidates: int | None = None
    twins: bool = True
    backend: str = "fused"

    name: ClassVar[str] = "dfal"

    def __post_init__(self) -> None:
        DeepFool(**self._deepfool())
        if not isinstance(self.twins, bool):
            raise TypeError(f"twins must be True or False, got {self.twins!r}")

    def _deepfool(self) -> dict[str, Any]:
        names = ("overshoot", "max_iter", "num_candidates", "backend")
        return {name: getattr(self, name) for name in names}

    def score(self, model: torch.nn.Module, pool: Any, context: QueryContext) -> PoolScores:
        return deepfool_scores(
            model,
            pool,
            **self._deepfool(),
            sample_index=torch.from_numpy(context.sample_index),
            batch_size=context.batch_size,
            progress=context.progress,
            look=context.look,
        )

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        norm = _given(scores).perturbation_norm
        if norm is None:
            raise ValueError("scores must be DeepFool's, got some without perturbation_norm")
        return _smallest(norm, n)

    def make_twins(
        self, model: torch.nn.Module, queried: Tensor, context: QueryContext
    ) -> tuple[Tensor, Tensor] | None:
        if not self.twins:
            return None
        device = home_device(model) or queried.device
        parts = []
        for x in queried.split(context.batch_size):
            found = deepfool(model, x.to(device), **self._deepfool())
            parts.append(((x.to(device) + found.perturbation).cpu(), found.reached.cpu()))
        moved, reached = (torch.cat(column) for column in zip(*parts, strict=True))
        of = (reached >= 0).nonzero().squeeze(1)
        return moved[of], of


STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy for strategy in (Random, Entropy, Margin, Vaal, Dfal)
}


def strategy_named(name: str) -> type[Strategy]:
    """The class of the strategy of that name. ValueError if there is none."""
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {name!r}")
    return STRATEGIES[name]


def make_strategy(name: str, **settings: Any) -> Strategy:
    """The strategy of that name. ``settings`` are the fields of its class.

    Raises:
        ValueError: an unknown name, or a setting that this strategy does not have.
        TypeError, ValueError: a setting of a wrong type or out of its range.
    """
    kind = strategy_named(name)
    known = [field.name for field in fields(kind)]
    for setting in settings:
        if setting not in known:
            raise ValueError(
                f"strategy {name} has no setting {setting!r}; it has {', '.join(known) or 'none'}"
            )
    return kind(**settings)


def parse_strategy(name: str) -> tuple[str, bool]:
    """The query strategy that a run's `strategy` names, and whether its training is regularised:
    "vaal+vat" is ("vaal", True). That there is such a strategy is not asked.

    Raises:
        ValueError: something other than +vat behind the name.
    """
    query, plus, regulariser = name.partition("+")
    if plus and regulariser != "vat":
        raise ValueError(f"a strategy may have +vat behind its name and nothing else, got {name!r}")
    return query, bool(plus)


def _given(scores: PoolScores | None) -> PoolScores:
    if scores is None:
        raise TypeError("scores must be what score() of this strategy gives, got None")
    return scores


def _smallest(values: np.ndarray, n: int) -> np.ndarray:
    """The n smallest values' positions, ties to the smaller position; NaN is left out."""
    order = np.argsort(values, kind="stable")  # NaN sorts last
    available = int(np.count_nonzero(~np.isnan(values)))
    _check_size(n, available)
    return order[:n].astype(np.int64)


def _check_size(n: int, available: int) -> None:
    if not 1 <= n <= available:
        raise ValueError(f"n must be at least 1 and at most the pool's {available}, got {n}")
