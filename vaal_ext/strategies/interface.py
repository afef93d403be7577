"""What every query strategy is: a score of the pool, then a pick from the scores."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vaal_ext.pool.scores import PoolScores

__all__ = ["QueryContext", "Strategy", "check_size", "given_scores", "smallest"]


@dataclass(frozen=True)
class QueryContext:
    """What a query may know besides the model and the pool.

    ``sample_index`` is the index in the data set of each pool sample, int64 [N]; ``seed`` is the
    only source of randomness; ``val_accuracy``, in 0..1, is that of the network on the validation
    set. The pool is scored ``batch_size`` samples at a time on the device of the model, with a bar
    if ``progress``. ``n`` is how many samples will be picked, or None where that is not known when
    the pool is scored: a strategy that knows it need not score what cannot be picked. With ``look``
    False the scoring does not first check the network on a few samples, see
    :class:`vaal_ext.LDRScorer`. ``labelled`` gives the samples that are labelled already, floating
    [L, ...], and their labels, int64 [L]; None where they are not at hand.
    """

    sample_index: np.ndarray
    num_classes: int
    seed: int
    val_accuracy: float | None = None
    batch_size: int = 256
    progress: bool = False
    n: int | None = None
    look: bool = True
    labelled: Callable[[], tuple[Tensor, Tensor]] | None = None


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


def given_scores(scores: PoolScores | None) -> PoolScores:
    """The scores. TypeError where there are none."""
    if scores is None:
        raise TypeError("scores must be what score() of this strategy gives, got None")
    return scores


def smallest(values: np.ndarray, n: int) -> np.ndarray:
    """int64 [n], the positions of the n smallest of values [N] of any dtype; ties go to the smaller
    position, and NaN is left out. ValueError where fewer than n are left."""
    order = np.argsort(values, kind="stable")  # NaN sorts last
    available = int(np.count_nonzero(~np.isnan(values)))
    check_size(n, available)
    return order[:n].astype(np.int64)


def check_size(n: int, available: int) -> None:
    """ValueError unless `n` of so many samples can be picked."""
    if not 1 <= n <= available:
        raise ValueError(f"n must be at least 1 and at most the pool's {available}, got {n}")
