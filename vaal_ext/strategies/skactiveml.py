"""scikit-activeml's batch strategies that take an embedding: the network's last hidden layer.

What they compute, and from what papers, stands in scikit-activeml's own documentation of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vaal_ext.backend import require_backend
from vaal_ext.cuda.memory import available_memory
from vaal_ext.network.last_linear import LastLinear
from vaal_ext.pool.rows import Forward, PoolRows, pool_rows
from vaal_ext.pool.scores import PoolScores
from vaal_ext.strategies.interface import QueryContext, Strategy, check_size

__all__ = [
    "Badge",
    "Clue",
    "Contrastive",
    "CoreSet",
    "DropQuery",
    "EmbeddedScores",
    "Falcun",
    "MaxHerding",
    "ProbCover",
    "Skactiveml",
    "TypiClust",
]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EmbeddedScores(PoolScores):
    """The summary of a pool's posteriors, and what a query on the embedding needs besides.

    Attributes:
        embedding: float32 [N, D], the inputs of the network's last linear layer. It is not saved.
        labelled: float32 [L, D], those of the labelled samples.
        labels: int64 [L], theirs.
        weight, bias: float32 [C, D] and [C], of that layer.
    """

    embedding: np.ndarray
    labelled: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Skactiveml(Strategy):
    """A strategy of scikit-activeml, asked for n samples at once from the embedding.

    Raises:
        ImportError: scikit-activeml is not installed; when the strategy is made.
    """

    backend: str = "fused"

    query: ClassVar[str]  # its name in skactiveml.pool
    normalised: ClassVar[bool] = False  # whether rows are scaled to unit length, as its paper does
    classifier: ClassVar[str | None] = None  # what its query calls the network's last layer

    def __post_init__(self) -> None:
        require_backend(self.backend)
        _skactiveml("pool")

    def score(self, model: torch.nn.Module, pool: Any, context: QueryContext) -> EmbeddedScores:
        """See :meth:`vaal_ext.strategies.Strategy.score`. ValueError also where the context has no
        labelled samples, or the network's logits are not the output of an nn.Linear."""
        if context.labelled is None:
            raise ValueError(f"strategy {self.name} needs the labelled samples: context.labelled")
        x, labels = context.labelled()
        rows = partial(pool_rows, model, backend=self.backend, batch_size=context.batch_size)
        with LastLinear(model) as last:
            layers: list[nn.Linear] = []

            def embedded(forward: Forward, batch: Tensor) -> tuple[Tensor, Tensor]:
                logits = forward(batch.clone())
                embedding, layer = last.of(logits)
                layers[:] = [layer]
                return logits, embedding

            found = rows(
                pool,
                embedded,
                sample_index=torch.from_numpy(context.sample_index),
                progress=context.progress,
                look=context.look,
            )
            of_labelled = rows(x, embedded, progress=False, look=False).rows
        return _with_embedding(found, of_labelled, labels, layers[0])

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        """See :meth:`vaal_ext.strategies.Strategy.pick`. MemoryError where the strategy would need
        more memory for so large a pool than there is."""
        if not isinstance(scores, EmbeddedScores):
            raise TypeError(f"scores must be what score() of {self.name} gives, got {scores!r}")
        readable = np.flatnonzero(scores.pseudo_label >= 0)
        check_size(n, len(readable))
        self._require_memory(len(readable), scores)
        x = np.concatenate([scores.labelled, scores.embedding[readable]])
        if self.normalised:
            x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        y = np.full(len(x), np.nan)
        y[: len(scores.labels)] = scores.labels
        query = getattr(_skactiveml("pool"), self.query)(**self._settings(context))
        further = {}
        if self.classifier is not None:
            further = {self.classifier: _head(scores), f"fit_{self.classifier}": False}
        picked = np.asarray(query.query(X=x, y=y, batch_size=n, **further))
        pool_index: np.ndarray = readable[picked - len(scores.labels)].astype(np.int64)
        return pool_index

    def _settings(self, context: QueryContext) -> dict[str, Any]:
        return {"random_state": context.seed % 2**32}

    def _bytes(self, samples: int, scores: EmbeddedScores) -> int:
        """The memory that the strategy takes for so many samples, at its peak."""
        return 4 * int(scores.embedding[0].nbytes) * samples  # X, a copy of it, and distances

    def _require_memory(self, samples: int, scores: EmbeddedScores) -> None:
        needed = self._bytes(samples, scores)
        there = available_memory(torch.device("cpu"))
        if needed > there:
            raise MemoryError(
                f"strategy {self.name} needs about {needed / 2**30:.1f} GiB for a pool of "
                f"{samples:,} samples, and {there / 2**30:.1f} GiB are free: give a smaller "
                "pool_size"
            )


def _seeded_clusters(context: QueryContext) -> dict[str, Any]:
    """The settings of a k-means that would otherwise draw from NumPy's global generator."""
    return {"cluster_algo_dict": {"random_state": context.seed % 2**32}}


class Badge(Skactiveml):
    """k-means++ over the gradients of the last layer by the pseudo label (Ash et al. 2020)."""

    name, query, classifier = "badge", "Badge", "clf"

    def _bytes(self, samples: int, scores: EmbeddedScores) -> int:
        # Of the gradients and of their squares; scikit-activeml has both in float64.
        return 4 * int(scores.embedding[0].nbytes) * scores.num_classes * samples


class Clue(Skactiveml):
    """k-means weighted by the entropy, and the samples nearest to the centres (Prabhu 2021)."""

    name, query, classifier = "clue", "Clue", "estimator"

    def _settings(self, context: QueryContext) -> dict[str, Any]:
        return super()._settings(context) | _seeded_clusters(context)


class Contrastive(Skactiveml):
    """The samples whose posterior differs most from their neighbours' (Margatina et al. 2021)."""

    name, query, classifier = "contrastive", "ContrastiveAL", "clf"


class DropQuery(Skactiveml):
    """Clusters of those whose pseudo label dropout of the embedding changes (Gupte et al. 2024)."""

    name, query, classifier = "dropquery", "DropQuery", "clf"

    def _settings(self, context: QueryContext) -> dict[str, Any]:
        return super()._settings(context) | _seeded_clusters(context)


class Falcun(Skactiveml):
    """Small margins, far apart in the posterior (Gilhuber et al. 2024)."""

    name, query, classifier = "falcun", "Falcun", "clf"


class CoreSet(Skactiveml):
    """k-centre-greedy: the sample farthest from all labelled ones, n times (Sener 2018)."""

    name, query = "coreset", "CoreSet"


class MaxHerding(Skactiveml):
    """The samples that are like most of the pool, by a kernel (Bae et al. 2024)."""

    name, query = "maxherding", "MaxHerding"

    def _bytes(self, samples: int, scores: EmbeddedScores) -> int:
        return 12 * samples**2


class ProbCover(Skactiveml):
    """The samples whose balls cover most of the pool (Yehuda et al. 2022)."""

    name, query, normalised = "probcover", "ProbCover", True

    def _settings(self, context: QueryContext) -> dict[str, Any]:
        return super()._settings(context) | {"n_classes": context.num_classes}

    def _bytes(self, samples: int, scores: EmbeddedScores) -> int:
        return 12 * samples**2  # distances, the graph, and which edges are impure


class TypiClust(Skactiveml):
    """The most typical sample of the largest clusters without a label (Hacohen et al. 2022)."""

    name, query, normalised = "typiclust", "TypiClust", True


def _with_embedding(
    found: PoolRows, labelled: np.ndarray, labels: Tensor, layer: nn.Linear
) -> EmbeddedScores:
    arrays = {name: getattr(found.scores, name) for name in PoolScores.__dataclass_fields__}
    weight = layer.weight.detach().float().cpu().numpy()
    bias = np.zeros(len(weight), np.float32)
    if layer.bias is not None:
        bias = layer.bias.detach().float().cpu().numpy()
    return EmbeddedScores(
        **arrays,
        embedding=found.rows,
        labelled=labelled,
        labels=labels.cpu().numpy(),
        weight=weight,
        bias=bias,
    )


def _skactiveml(module: str) -> Any:
    try:
        return import_module(f"skactiveml.{module}")
    except ImportError as error:
        raise ImportError(
            f"this strategy is scikit-activeml's: pip install 'vaal_ext[skactiveml]' ({error})"
        ) from error


def _head(scores: EmbeddedScores) -> Any:
    """The network's last layer as a fitted classifier of scikit-activeml, of embeddings."""

    class Head(_skactiveml("base").SkactivemlClassifier):  # type: ignore[misc]
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Head:
            raise NotImplementedError("the network is trained already")

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            logits = torch.from_numpy(np.asarray(X, np.float32) @ scores.weight.T + scores.bias)
            return logits.softmax(dim=1).numpy()

        def predict(self, X: np.ndarray) -> Any:
            return self.predict_proba(X).argmax(axis=1)

    return Head(classes=np.arange(len(scores.bias)))
