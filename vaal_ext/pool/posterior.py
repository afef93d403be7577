"""The posterior of a network over a whole pool, without roughness."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from vaal_ext.forward import LogitsFn
from vaal_ext.model_state import Model
from vaal_ext.pool.scores import PoolScores
from vaal_ext.pool.scoring import PoolRun

__all__ = ["posterior_scores"]


def posterior_scores(
    model: Model,
    pool: Any,
    *,
    logits_fn: LogitsFn | None = None,
    device: torch.device | str | None = None,
    amp: str | None = None,
    batch_size: int | Literal["auto"] = 256,
    num_workers: int = 0,
    normalize: tuple[Any, Any] | None = None,
    on_nonfinite: str = "raise",
    backend: str = "fused",
    sample_index: Tensor | None = None,
    progress: bool = True,
    look: bool = True,
) -> PoolScores:
    """One forward pass over the pool: what :class:`vaal_ext.LDRScorer` gives, with ldr all NaN.

    For strategies that need the posterior only (entropy, margin). Arguments and errors are as for
    :class:`vaal_ext.LDRScorer`, but amp="auto" is refused: it compares LDR.
    """
    run = PoolRun(
        model,
        None,
        logits_fn=logits_fn,
        device=device,
        amp=amp,
        batch_size=batch_size,
        num_workers=num_workers,
        normalize=normalize,
        on_nonfinite=on_nonfinite,
        backend=backend,
        look=look,
    )
    return run.score(pool, sample_index, progress)[0]
