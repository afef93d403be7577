"""A model run over a whole pool: batches in, NumPy columns out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vaal_ext.checks import require_int
from vaal_ext.model_state import Model, borrowed, home_device
from vaal_ext.pool import PoolScores, ScoreTable
from vaal_ext.pool_batches import pool_batches, pool_size
from vaal_ext.power_iteration import (
    LogitsFn,
    PowerIteration,
    check_input,
    finite_rows,
    forward_of,
    load_backend,
    require_backend,
)

__all__ = ["PoolRun", "index_array"]

_AMP = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}


class PoolRun:
    """A model made ready to run over pools; for the arguments see :class:`vaal_ext.LDRScorer`."""

    def __init__(
        self,
        model: Model,
        logits_fn: LogitsFn | None,
        device: torch.device | str | None,
        amp: str | None,
        batch_size: int,
        on_nonfinite: str,
        backend: str,
    ) -> None:
        require_int("batch_size", batch_size, 1)
        if on_nonfinite not in ("raise", "skip"):
            raise ValueError(f"on_nonfinite must be 'raise' or 'skip', got {on_nonfinite!r}")
        if amp not in _AMP:
            raise ValueError(f"amp must be None, 'bf16' or 'fp16', got {amp!r}")
        require_backend(backend)
        self.model = model
        self.forward = forward_of(model, logits_fn, _AMP[amp])
        self.device = None if device is None else torch.device(device)
        self.batch_size = batch_size
        self.on_nonfinite = on_nonfinite
        self.backend = backend

    def score(
        self, pool: Any, sample_index: Any, progress: bool, probe: PowerIteration | None
    ) -> tuple[PoolScores, int]:
        """The scores of the pool (ldr NaN without a `probe`), and how many samples are flat."""
        size = pool_size(pool)
        index = np.arange(size) if sample_index is None else index_array(sample_index, size)
        load_backend(self.backend)
        device = self._device(pool)
        table = ScoreTable(index)
        fits = size  # samples at a time: fewer, once a batch has not fitted into memory
        with (
            borrowed(self.model, device),
            tqdm(
                total=size,
                desc="posterior" if probe is None else "LDR",
                unit=" samples",
                disable=not progress,
            ) as bar,
        ):
            for x, position in pool_batches(pool, self.batch_size):
                check_input(x)
                start = 0
                while start < len(x):
                    part = position[start : start + fits].numpy()
                    rows = self._rows_if_they_fit(
                        x[start : start + fits], index[part], device, probe
                    )
                    if rows is not None:
                        table.enter(part, *rows)
                        bar.update(len(part))
                        start += len(part)
                        continue
                    fits = max(1, len(part) // 2)
                    warnings.warn(
                        f"out of memory with {len(part)} samples at a time: going on with {fits}",
                        RuntimeWarning,
                        stacklevel=3,
                    )
        return table.scores(), table.flat

    def _device(self, pool: Any) -> torch.device:
        home = home_device(self.model)
        if self.device is None:
            return home or (pool.device if isinstance(pool, Tensor) else torch.device("cpu"))
        if home is not None and self.device.type != home.type:
            raise ValueError(f"the model lies on {home}: move it before scoring on {self.device}")
        return self.device

    def _rows_if_they_fit(
        self, x: Tensor, index: np.ndarray, device: torch.device, probe: PowerIteration | None
    ) -> tuple[np.ndarray, Tensor] | None:
        """The rows of some samples; None where the device's memory is too small for so many."""
        try:
            return self._rows(x.detach().to(device), index, device, probe)
        except torch.OutOfMemoryError:
            if len(x) == 1:
                raise
        # Out of the except block, where the traceback still held the tensors of the failed try.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _rows(
        self, x: Tensor, index: np.ndarray, device: torch.device, probe: PowerIteration | None
    ) -> tuple[np.ndarray, Tensor]:
        """Pseudo label, entropy, margin, ldr, flat as float64 [5, B]; the posteriors' sum [C]."""
        if probe is None:
            with torch.no_grad():
                logits = self.forward(x)
            ldr = torch.full((len(x),), torch.nan, device=logits.device)
            flat = torch.zeros(len(x), dtype=torch.bool, device=logits.device)
        else:
            logits, ldr, flat = probe.run(self.forward, x, torch.from_numpy(index).to(device))
        with torch.no_grad():
            summary = load_backend(self.backend).posterior_summary(logits)
            finite = finite_rows(logits)
            if probe is not None:
                finite = finite & torch.isfinite(ldr)
            # One copy to the host for everything; float64 holds every label exactly.
            columns = [column.double() for column in (*summary, ldr, flat, finite)]
            columns = torch.stack(columns).cpu().numpy()
            posterior = torch.softmax(logits, dim=1, dtype=torch.float64)
            posterior = posterior.masked_fill(~finite.unsqueeze(1), 0.0).sum(0)
        rows, failed = columns[:5], np.flatnonzero(columns[5] == 0)
        if len(failed) and self.on_nonfinite == "raise":
            raise ValueError(
                f"sample {index[failed[0]]}: the model's logits are not finite ({len(failed)} such "
                f"in its batch of {len(index)}); on_nonfinite='skip' leaves them without a score"
            )
        rows[:, failed] = np.array([[-1.0], [np.nan], [np.nan], [np.nan], [0.0]])
        return rows, posterior


def index_array(sample_index: Any, size: int) -> np.ndarray:
    """sample_index as int64 [size] on the host.

    Raises:
        TypeError: no tensor or array of integers. ValueError: another shape, or a negative index.
    """
    if isinstance(sample_index, Tensor):
        sample_index = sample_index.detach().cpu().numpy()
    if not isinstance(sample_index, np.ndarray) or sample_index.dtype.kind not in "iu":
        came = getattr(sample_index, "dtype", type(sample_index).__name__)
        raise TypeError(f"sample_index must be a tensor of integers, got {came}")
    if sample_index.shape != (size,):
        raise ValueError(
            f"sample_index must have shape [{size}], one index per sample, got {sample_index.shape}"
        )
    if size and sample_index.min() < 0:
        raise ValueError(f"sample_index must not be negative, got {sample_index.min()}")
    return sample_index.astype(np.int64)
