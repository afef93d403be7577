"""A row of numbers for every sample of a pool, beside the summary of its posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaal_ext.network.state import Model
from vaal_ext.perturbation.measure import Measured, Posterior
from vaal_ext.pool.run import Piece, PoolRun
from vaal_ext.pool.scores import PoolScores

__all__ = ["MakeRows", "PoolRows", "pool_rows"]

Forward = Callable[[Tensor], Tensor]
# Of a forward and a batch x [B, ...]: its logits [B, C] and the rows [B, K].
MakeRows = Callable[[Forward, Tensor], tuple[Tensor, Tensor]]


class PoolRows(NamedTuple):
    """The summary of each posterior, and float32 [N, K] in the order of the scores."""

    scores: PoolScores
    rows: np.ndarray


@dataclass(frozen=True)
class _Kept:
    """A measure that keeps rows and has no values."""

    make: MakeRows
    kept: dict[int, np.ndarray] = field(default_factory=dict)  # by the sample's identity

    column: ClassVar[str | None] = None
    label: ClassVar[str] = "embedding"
    settings: ClassVar[dict[str, Any]] = {}

    def run(
        self, forward: Forward, x: Tensor, index: Tensor, mask: Tensor | None = None
    ) -> Measured:
        with torch.no_grad():
            logits, rows = self.make(forward, x)
            self.kept.update(zip(index.tolist(), rows.float().cpu().numpy(), strict=True))
        return Measured(logits)


def pool_rows(
    model: Model,
    pool: Any,
    make: MakeRows,
    *,
    backend: str = "fused",
    batch_size: int = 256,
    sample_index: Tensor | None = None,
    progress: bool = True,
    look: bool = True,
) -> PoolRows:
    """What `make` gives for every sample of the pool, in memory for 4·N·K bytes.

    The model is in eval mode and its gradients are off, and it is given back as it came. The row
    of a sample that could not be read is NaN. For the other arguments and the errors see
    :class:`vaal_ext.LDRScorer`.
    """
    run = PoolRun(
        model,
        Posterior(),
        logits_fn=None,
        device=None,
        amp=None,
        batch_size=batch_size,
        num_workers=0,
        normalize=None,
        on_nonfinite="raise",
        backend=backend,
        look=look,
    )
    index, kept = run.index(pool, sample_index), _Kept(make)
    whole, size = [Piece(range(len(index)), look=True)], len(index)
    plan = run.plan(pool, index)
    (part,) = run.parts(plan, pool, index, whole, size, progress, measure=kept)
    width = len(next(iter(kept.kept.values()), ()))
    rows = np.full((part.scores.num_samples, width), np.nan, dtype=np.float32)
    for row, sample in zip(rows, part.scores.index, strict=True):
        if sample in kept.kept:
            row[:] = kept.kept[sample]
    return PoolRows(part.scores, rows)
