"""small-text: LDR as a query strategy around a transformer classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from small_text import QueryStrategy, TransformerBasedClassification
from torch import Tensor
from torch.utils.data import Dataset

from vaal_ext.integrations.query import LDRQuery
from vaal_ext.integrations.transformers import TokenEmbeddings

__all__ = ["LDRSampling"]


class LDRSampling(QueryStrategy):
    """A query strategy for ``small_text.PoolBasedActiveLearner(factory, strategy, dataset)``.

    Texts are perturbed at their token embeddings: see
    :class:`~vaal_ext.integrations.transformers.TokenEmbeddings` for the units of eps.

    Args:
        settings: those of :class:`~vaal_ext.integrations.query.LDRQuery`, without `encode`.

    Raises:
        TypeError, ValueError: see there.
    """

    def __init__(self, **settings: Any) -> None:
        self._query = LDRQuery(**settings)

    def query(
        self,
        clf: Any,
        dataset: Any,
        indices_unlabeled: np.ndarray,
        indices_labeled: np.ndarray,
        y: Any,
        n: int = 10,
    ) -> np.ndarray:
        """Chooses n of the unlabelled texts.

        Args:
            clf: a trained TransformerBasedClassification for single labels.
            dataset: a TransformersDataset: (ids int64 [1, T], attention mask [1, T], label) each.
            indices_unlabeled: int [N], relative to `dataset`.
            indices_labeled, y: not used.
            n: texts to choose.

        Returns:
            `sample_index` int64 [n], relative to `dataset`, in the order they were picked.

        Raises:
            EmptyPoolException, PoolExhaustedException: fewer than n texts are unlabelled.
            TypeError: another classifier. ValueError: it is not trained, or for several labels.
        """
        self._validate_query_input(indices_unlabeled, n)
        if not isinstance(clf, TransformerBasedClassification):
            raise TypeError(
                f"clf must be a TransformerBasedClassification, got {type(clf).__name__}"
            )
        if clf.multi_label:
            raise ValueError("clf must be for single labels, got one for several labels a text")
        if clf.model is None:
            raise ValueError("clf is not trained yet: it must be before a query")
        network = TokenEmbeddings(clf.model)
        sample_index = np.asarray(indices_unlabeled, dtype=np.int64)
        pool = _Tokens(dataset.data, sample_index)
        scores = self._query.score(network, pool, sample_index, n, encode=network.encode)
        chosen: np.ndarray = sample_index[self._query.choose(scores, n)]
        return chosen


class _Tokens(Dataset[Tensor]):
    """int64 [2, T] for each text: its ids and its attention mask."""

    def __init__(self, data: Any, sample_index: np.ndarray) -> None:
        self._data = data
        self._sample_index = sample_index

    def __len__(self) -> int:
        return len(self._sample_index)

    def __getitem__(self, pool_index: int) -> Tensor:
        ids, mask, *_ = self._data[self._sample_index[pool_index]]
        return torch.cat([ids, mask])
