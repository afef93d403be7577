"""The DeepAL family (deep-active-learning and its descendants): LDR as a Strategy.query(n)."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, ClassVar

import numpy as np

from vaal_ext.integrations.query import LDRQuery

__all__ = ["LDRSampling"]


class LDRSampling:
    """Gives ``query(n)`` to a strategy; the rest comes from the Strategy class of your checkout::

        class VaalSampling(LDRSampling, Strategy):
            ldr = LDRQuery(eps=0.1)

    Used of it: ``self.dataset.get_unlabeled_data()``, which returns the indices int [N] of the
    unlabelled samples and a Dataset of (x, y, position), and ``self.net.clf``, the trained network,
    which returns (logits [B, C], embedding).

    Attributes:
        ldr: the settings.
    """

    ldr: ClassVar[LDRQuery]
    dataset: Any  # these two are of the Strategy class
    net: Any

    def query(self, n: int) -> np.ndarray:
        """`sample_index` int64 [n]: distinct, in the whole training set, as Strategy.update takes.

        Raises:
            ValueError: the network is not trained yet, or fewer than n samples are unlabelled.
        """
        clf = getattr(self.net, "clf", None)
        if clf is None:
            raise ValueError("the network is not trained yet: call train() before query()")
        sample_index, pool = self.dataset.get_unlabeled_data()
        sample_index = np.asarray(sample_index, dtype=np.int64)
        scores = self.ldr.score(clf, pool, sample_index, n, logits_fn=itemgetter(0))
        chosen: np.ndarray = sample_index[self.ldr.choose(scores, n)]
        return chosen
