"""How batches run on a device, and which way of running them is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from vaal_ext.forward import LogitsFn, check_input, forward_of
from vaal_ext.model_state import Model
from vaal_ext.pool.batches import first_samples
from vaal_ext.pool.inner_point import Encode, InnerPoint
from vaal_ext.pool.memory import MemoryGrowth, available_memory
from vaal_ext.pool.pixels import PixelScale
from vaal_ext.pool.trial import MIN_SAMPLES, Mode, choose_batch_size, choose_mode
from vaal_ext.power_iteration import PowerIteration, Roughness

__all__ = ["AMP", "BatchRun", "Execution", "Probe", "choose_execution"]

AMP = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}

# Of the memory that is available, for a batch of the size "auto" chooses.
_MEMORY_SHARE = 0.5
# No device gains by more samples at a time.
_LARGEST_BATCH = 8192
# Samples read to time batches of any size.
_READ = 64


class Probe(Protocol):
    """What is done with a batch besides one forward: the power iteration, or DeepFool."""

    def run(self, forward: Callable[[Tensor], Tensor], x: Tensor, index: Tensor) -> Roughness:
        """See :meth:`~vaal_ext.power_iteration.PowerIteration.run`."""


@dataclass(frozen=True)
class Execution:
    """How a pool was scored.

    Attributes:
        batch_size: samples at a time; None where a DataLoader made the batches.
        mode: the number format and memory format that the network ran in.
        report: what was tried and found, a line; empty where nothing had to be chosen.
    """

    batch_size: int | None
    mode: Mode
    report: str


@dataclass(frozen=True)
class BatchRun:
    """Runs batches through the network, in the mode asked for.

    Attributes:
        model, logits_fn: see :func:`vaal_ext.ldr_scores`.
        device: where the network runs.
        probe: what measures a batch, or None for the clean logits alone (ldr NaN, nothing flat).
        pixels: what turns uint8 samples into the network's input, or None where they are floating.
        encode: what comes before the point that is perturbed, or None where that is the input. A
            mask from it is for a probe that begins at random: its run gets it as `mask`.
    """

    model: Model
    logits_fn: LogitsFn | None
    device: torch.device
    probe: Probe | None
    pixels: PixelScale | None
    encode: Encode | None = None

    def check(self, x: Tensor) -> None:
        """TypeError or ValueError where x is no [B, ...]: uint8 with `pixels`, else floating."""
        if self.pixels is not None:
            self.pixels.check(x)
        elif self.encode is None:
            check_input(x)

    def __call__(self, x: Tensor, index: Tensor, mode: Mode) -> Roughness:
        """x [B, ...] on any device, B >= 1; index int64 [B] likewise: it keys their starts."""
        x = x.detach().to(self.device)  # bytes as bytes
        if self.pixels is not None:
            x = self.pixels.input(x)
        if mode.channels_last:
            # Not x.contiguous(): it leaves the strides of a single channel as they are, and by
            # these torch chooses its kernels.
            x = torch.empty_like(x, memory_format=torch.channels_last).copy_(x)
        model, mask = self.model, None
        if self.encode is not None:
            inner = InnerPoint.of(self.encode, x)
            model, x, mask = inner.model_from(model), inner.point, inner.mask
        forward = forward_of(model, self.logits_fn, AMP[mode.amp])
        if self.probe is not None:
            masked = {} if mask is None else {"mask": mask}
            return self.probe.run(forward, x, index.to(self.device), **masked)
        with torch.no_grad():
            logits = forward(x.clone())  # a model may begin with an in-place layer
        ldr = torch.full((len(x),), torch.nan, device=logits.device)
        return Roughness(logits, ldr, torch.zeros_like(ldr, dtype=torch.bool))


def choose_execution(
    run: BatchRun,
    pool: Any,
    index: np.ndarray | range,
    *,
    amp: str | None,
    batch_size: int | Literal["auto"] | None,
    memory_limit: int | None,
) -> Execution:
    """Settles what is "auto" by short trials on the first samples of the pool.

    The batch size comes first, then the number format. A pool of less than 256 samples is run in
    float32, because so few cannot tell whether another format ranks them alike.

    Args:
        run: in the eval mode, and so on, in which the pool will be scored.
        index: int64 [N] or a range, the samples' identities.
        amp: one of `AMP`, or "auto".
        batch_size: a number, "auto", or None where a DataLoader makes the batches.
        memory_limit: bytes that a batch may take, by default half of what is available.
    """
    mode = Mode(None if amp == "auto" else amp)
    reports = []
    if batch_size == "auto":
        size: int | None
        size, report = _batch_size(run, pool, index, mode, memory_limit)
        reports.append(report)
    else:
        size = batch_size
    if amp == "auto":
        mode, report = _mode(run, pool, index, size or MIN_SAMPLES)
        reports.append(report)
    return Execution(size, mode, "; ".join(reports))


def _batch_size(
    run: BatchRun, pool: Any, index: np.ndarray | range, mode: Mode, memory_limit: int | None
) -> tuple[int, str]:
    if memory_limit is None:
        memory_limit = int(_MEMORY_SHARE * available_memory(run.device))
    growth = MemoryGrowth(run.device)
    # As few steps of the search as there can be for every size: the rates keep their proportions.
    # So they do with few samples that are repeated, which spares reading thousands.
    if isinstance(run.probe, PowerIteration):
        fewest = 0 if run.probe.method == "direct" else 1
        run = replace(run, probe=replace(run.probe, num_iters=fewest))
    x = first_samples(pool, min(len(index), _READ))
    if len(x) == 0:
        return 1, "batch size 1 (the pool is empty)"
    run.check(x)

    def run_batch(size: int) -> None:
        rows = torch.arange(size) % len(x)
        run(x[rows], rows, mode).ldr.cpu()  # which waits for the device

    largest = min(len(index), _LARGEST_BATCH)
    size, rates = choose_batch_size(run_batch, largest, growth.peak, memory_limit)
    tried = ", ".join(f"{b}: {rate:.0f}" for b, rate in rates.items())
    return size, f"batch size {size} (samples/s in a short trial: {tried})"


def _mode(run: BatchRun, pool: Any, index: np.ndarray | range, batch_size: int) -> tuple[Mode, str]:
    count = len(index)
    if count >= MIN_SAMPLES:
        x = first_samples(pool, MIN_SAMPLES)
        count = len(x)
    if count < MIN_SAMPLES:
        return Mode(), f"float32 ({count} samples are too few to try other formats)"
    keys = torch.from_numpy(np.asarray(index[:MIN_SAMPLES]))
    run.check(x)
    others = [Mode(amp, last) for amp in (None, "bf16") for last in (False, True)]
    others = [mode for mode in others[1:] if x.ndim == 4 or not mode.channels_last]

    def run_mode(mode: Mode) -> np.ndarray:
        pieces = range(0, MIN_SAMPLES, batch_size)
        parts = [slice(start, start + batch_size) for start in pieces]
        return np.concatenate([run(x[p], keys[p], mode).ldr.cpu() for p in parts])

    try:
        mode, found = choose_mode(run_mode, others)
    except torch.OutOfMemoryError:
        return Mode(), "float32 (the trial of other formats ran out of memory)"
    return mode, f"{mode} ({'; '.join(f'{m}: {text}' for m, text in found.items())})"
