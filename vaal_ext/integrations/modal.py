"""modAL: LDR as the query strategy of an ActiveLearner around a skorch classifier."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy as np
from skorch import NeuralNetClassifier
from torch import nn

from vaal_ext.integrations.query import LDRQuery

__all__ = ["LDRSampling"]


class LDRSampling:
    """A query strategy for ``modAL.models.ActiveLearner(estimator, query_strategy=...)``.

    The estimator is a fitted skorch.NeuralNetClassifier whose module gives logits [B, C], or a
    tuple that begins with them, and whose criterion takes logits (CrossEntropyLoss). The strategy
    draws nothing from a global generator, so a query can be repeated.

    Args:
        settings: those of :class:`~vaal_ext.integrations.query.LDRQuery`.

    Raises:
        TypeError, ValueError: see there.
    """

    def __init__(self, **settings: Any) -> None:
        self._query = LDRQuery(**settings)
        self._has_logits_fn = settings.get("logits_fn") is not None

    def __call__(
        self, learner: Any, X_pool: Any, n_instances: int = 1, sample_index: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What ``learner.query(X_pool, n_instances=..., sample_index=...)`` calls.

        A tuple in any case: modAL unpacks what comes back, and where that fails it runs the
        strategy once more.

        Args:
            learner: the ActiveLearner.
            X_pool: floating array or tensor [N, ...], of the dtype that the network takes.
            n_instances: samples to choose.
            sample_index: int64 [N], the place of each sample in the whole data set, by default
                arange(N). With it a sample keeps its start direction while the pool shrinks.

        Returns:
            `pool_index` int64 [n_instances], in X_pool as modAL expects it, and the LDR of these
            samples, float32 [n_instances].

        Raises:
            TypeError: the estimator is no NeuralNetClassifier.
            ValueError: it is not fitted, or its module gives probabilities.
        """
        net = getattr(learner, "estimator", None)
        if not isinstance(net, NeuralNetClassifier):
            raise TypeError(
                "the learner's estimator must be a skorch.NeuralNetClassifier, got "
                f"{type(net).__name__}"
            )
        if not net.initialized_:
            raise ValueError("the learner's estimator is not fitted: call its fit before a query")
        # skorch takes the logarithm of the module's output in front of this criterion.
        if isinstance(net.criterion_, nn.NLLLoss) and not self._has_logits_fn:
            raise ValueError(
                "the criterion is NLLLoss, for which skorch expects probabilities from the module: "
                "expected logits, with criterion=torch.nn.CrossEntropyLoss, or a logits_fn"
            )
        scores = self._query.score(net.module_, X_pool, sample_index, n_instances, logits_fn=_first)
        pool_index = self._query.choose(scores, n_instances)
        return pool_index, scores.ldr[pool_index]


def _first(output: Any) -> Any:
    return itemgetter(0)(output) if isinstance(output, tuple) else output
