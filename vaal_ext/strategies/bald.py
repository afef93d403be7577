"""The strategy BALD: the samples about which the network's dropout masks disagree most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from vaal_ext.backend import require_backend
from vaal_ext.checks import require_int
from vaal_ext.pool.rows import Forward, pool_rows
from vaal_ext.pool.scores import PoolScores
from vaal_ext.strategies.interface import QueryContext, Strategy, smallest

__all__ = ["Bald", "DisagreementScores"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DisagreementScores(PoolScores):
    """The summary of a pool's posteriors, and how much the dropout masks disagree.

    Attributes:
        mutual_information: float32 [N], of the label and the masks, in nats. It is not saved.
    """

    mutual_information: np.ndarray


@dataclass(frozen=True)
class Bald(Strategy):
    """The n largest mutual informations of the label and the dropout mask (Houlsby et al. 2011; by
    Monte Carlo dropout, Gal et al. 2017): H(mean posterior) - mean H(posterior) over the masks.

    Settings: `masks`, how many forwards with dropout on there are.

    Raises:
        TypeError, ValueError: masks is no int, or below 2; an unknown backend.
    """

    masks: int = 10
    backend: str = "fused"

    name: ClassVar[str] = "bald"

    def __post_init__(self) -> None:
        require_int("masks", self.masks, 2)
        require_backend(self.backend)

    def score(self, model: torch.nn.Module, pool: Any, context: QueryContext) -> DisagreementScores:
        """See :meth:`vaal_ext.strategies.Strategy.score`. ValueError also where the network has no
        dropout: all its masks would agree."""
        dropouts = [m for m in model.modules() if isinstance(m, _DropoutNd) and m.p > 0]
        if not dropouts:
            raise ValueError(f"strategy bald needs a network with dropout, got {type(model)}")
        generator_seed = context.seed

        def disagreement(forward: Forward, x: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal generator_seed
            logits = forward(x.clone())
            torch.manual_seed(generator_seed)  # the pool's run has forked the global generator
            generator_seed += 1
            for module in dropouts:
                module.training = True
            posteriors = [forward(x.clone()).double().softmax(1) for _ in range(self.masks)]
            for module in dropouts:
                module.training = False
            mean = torch.stack(posteriors).mean(0)
            each = torch.stack([_entropy(posterior) for posterior in posteriors]).mean(0)
            return logits, (_entropy(mean) - each).unsqueeze(1)

        found = pool_rows(
            model,
            pool,
            disagreement,
            backend=self.backend,
            batch_size=context.batch_size,
            sample_index=torch.from_numpy(context.sample_index),
            progress=context.progress,
            look=context.look,
        )
        arrays = {name: getattr(found.scores, name) for name in PoolScores.__dataclass_fields__}
        return DisagreementScores(**arrays, mutual_information=found.rows[:, 0])

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        """See :meth:`vaal_ext.strategies.Strategy.pick`."""
        if not isinstance(scores, DisagreementScores):
            raise TypeError(f"scores must be what score() of bald gives, got {scores!r}")
        return smallest(-scores.mutual_information, n)


def _entropy(posterior: Tensor) -> Tensor:
    """[B], in nats, of [B, C]."""
    return -torch.xlogy(posterior, posterior).sum(1)
