"""The strategy DFAL: the samples nearest to a decision boundary, and their adversarial twins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vaal_ext.network.state import home_device
from vaal_ext.perturbation.deepfool import DeepFool, deepfool
from vaal_ext.pool.baselines import deepfool_scores
from vaal_ext.pool.scores import PoolScores
from vaal_ext.strategies.interface import QueryContext, Strategy, given_scores, smallest

__all__ = ["Dfal"]


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
        """See :meth:`vaal_ext.strategies.Strategy.score`."""
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
        """See :meth:`vaal_ext.strategies.Strategy.pick`."""
        norm = given_scores(scores).perturbation_norm
        if norm is None:
            raise ValueError("scores must be DeepFool's, got some without perturbation_norm")
        return smallest(norm, n)

    def make_twins(
        self, model: torch.nn.Module, queried: Tensor, context: QueryContext
    ) -> tuple[Tensor, Tensor] | None:
        """See :meth:`vaal_ext.strategies.Strategy.make_twins`."""
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
