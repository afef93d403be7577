"""A pool's scores for the strategies that LDR is compared with: the posterior, DeepFool's norm."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from vaal_ext.checks import require_int, warn_caller
from vaal_ext.network.logits import LogitsFn
from vaal_ext.network.state import Model
from vaal_ext.perturbation.deepfool import DeepFool
from vaal_ext.perturbation.measure import Posterior
from vaal_ext.pool.run import Part, Piece, PoolRun
from vaal_ext.pool.scores import PoolScores

__all__ = ["deepfool_scores", "posterior_scores"]


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
        Posterior(),
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
    return _scored(run, pool, sample_index, progress).scores


def deepfool_scores(
    model: Model,
    pool: Any,
    *,
    overshoot: float = 0.02,
    max_iter: int = 50,
    num_candidates: int | None = None,
    logits_fn: LogitsFn | None = None,
    device: torch.device | str | None = None,
    amp: str | None = None,
    batch_size: int = 256,
    num_workers: int = 0,
    normalize: tuple[Any, Any] | None = None,
    on_nonfinite: str = "raise",
    backend: str = "fused",
    sample_index: Tensor | None = None,
    progress: bool = True,
    look: bool = True,
) -> PoolScores:
    """The norm of every pool sample's perturbation, in batches: `.perturbation_norm`, ldr all NaN.

    inf marks samples that reached no other class, of which a warning tells the number. The
    perturbations themselves are not kept. Arguments and errors as for :func:`deepfool` and
    :class:`vaal_ext.LDRScorer`; amp and batch_size have no "auto".
    """
    measure = DeepFool(overshoot, max_iter, num_candidates, backend)
    require_int("batch_size", batch_size, 1)
    if amp not in (None, "bf16", "fp16"):
        raise ValueError(f"amp must be None, 'bf16' or 'fp16', got {amp!r}")
    run = PoolRun(
        model,
        measure,
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
    part = _scored(run, pool, sample_index, progress)
    if part.failed:
        warn_caller(
            f"DeepFool reached no other class from {part.failed} of {part.scores.num_samples} "
            f"samples in {max_iter} iterations: their norm is inf"
        )
    return part.scores


def _scored(run: PoolRun, pool: Any, sample_index: Any, progress: bool) -> Part:
    """The whole pool in one piece."""
    index = run.index(pool, sample_index)
    whole, size = [Piece(range(len(index)), look=True)], len(index)
    (part,) = run.parts(run.plan(pool, index), pool, index, whole, size, progress)
    return part
