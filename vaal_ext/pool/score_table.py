"""The table of a pool's scores that fills while they come in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from vaal_ext.pool.scores import CLEAN, DTYPES, PoolScores

__all__ = ["ScoreTable"]


class ScoreTable:
    """The scores of a pool while they come in, whatever their order: 33 bytes a sample.

    Names besides take 4 bytes a letter of the longest name, as NumPy has texts.

    Args:
        index: int64 [N], the dataset index of each sample of the pool; kept, not copied.
        column: the one that the values fill, "ldr" or "perturbation_norm"; None for none. (An ldr
            that is not filled is all NaN.)
        name: str [N], the samples' names, if they have any; kept, not copied.

    Attributes:
        values: float32 [N], of the measure; NaN where there is none.
        curvature: float32 [N], of the clean posterior, likewise.
        failed: how many of the samples so far the measure failed on, see `enter`.
    """

    def __init__(
        self, index: np.ndarray, column: str | None = "ldr", name: np.ndarray | None = None
    ) -> None:
        size = len(index)
        # Two arrays, not two rows of one: the values outlive the table.
        self.values = np.full(size, np.nan, dtype=np.float32)
        self.curvature = np.full(size, np.nan, dtype=np.float32)
        self.failed = 0
        self._column = column
        self._given = {"index": index} | ({} if name is None else {"name": name})
        self._scored = np.zeros(size, dtype=bool)
        self._clean = {name: np.empty(size, dtype=DTYPES[name]) for name in CLEAN}
        self._finite = 0
        self._posterior: Tensor | None = None

    def enter(
        self, position: np.ndarray, columns: Mapping[str, np.ndarray], posterior: Tensor
    ) -> None:
        """Takes the scores of some samples.

        Args:
            position: int64 [B], their places in the pool.
            columns: "pseudo_label", "entropy", "margin", "value", "failed" and "curvature", each
                [B], with -1 and NaN where the logits were not finite.
            posterior: float64 [C] on any device, the sum of their posteriors.

        Raises:
            ValueError: a number of classes other than before.
        """
        if self._posterior is None:
            self._posterior = posterior
        elif self._posterior.shape == posterior.shape:
            self._posterior += posterior
        else:
            raise ValueError(
                f"the model gave {len(posterior)} classes where it gave {len(self._posterior)} "
                "before"
            )
        for name, column in self._clean.items():
            column[position] = columns[name]
        self.values[position] = columns["value"]
        self.curvature[position] = columns["curvature"]
        self._scored[position] = True
        self._finite += int((columns["pseudo_label"] >= 0).sum())
        self.failed += int(columns["failed"].sum())

    def leave_out(self, position: list[int]) -> None:
        """Takes it that the samples at these places of the pool are not there: their rows are as
        those of logits that were not finite."""
        for name, column in self._clean.items():
            column[position] = -1 if name == "pseudo_label" else np.nan
        self._scored[position] = True

    @property
    def position(self) -> np.ndarray:
        """int64 [M], the places in the pool of the samples that have come in, in order."""
        return np.flatnonzero(self._scored)

    def scores(self) -> PoolScores:
        """What has come in, in the order of the pool. The table gives its columns away."""
        columns = self._given | self._clean
        if self._column is not None:
            columns[self._column] = self.values
        if "ldr" not in columns:
            columns["ldr"] = np.full(len(self._scored), np.nan, dtype=np.float32)
        self._clean = {}
        if not self._scored.all():
            for name in columns:  # one after the other: the memory of one column at a time
                columns[name] = columns[name][self._scored]
            self.values = self.values[self._scored]
            self.curvature = self.curvature[self._scored]
        mean = np.zeros(0)
        if self._posterior is not None:
            mean = self._posterior.cpu().numpy()
            mean = mean / self._finite if self._finite else np.full_like(mean, np.nan)
        return PoolScores(**columns, posterior_mean=mean)
