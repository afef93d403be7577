"""How a pool is run: the batch size and the number format, settled by trials where "auto"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from vaal_ext.cuda.memory import MemoryGrowth, available_memory
from vaal_ext.perturbation.ldr import LDR
from vaal_ext.pool.batch_run import BatchRun, Mode
from vaal_ext.pool.batches import first_samples
from vaal_ext.pool.trials import MIN_SAMPLES, choose_batch_size, choose_mode

__all__ = ["Plan", "choose_plan"]

# The share of the available memory that a batch of the size "auto" may take.
_MEMORY_SHARE = 0.5
# No device gains by more samples at a time.
_LARGEST_BATCH = 8192
# Samples read to time batches of any size.
_READ = 64


@dataclass(frozen=True)
class Plan:
    """How a pool is scored.

    Attributes:
        batch_size: samples at a time; None where a DataLoader made the batches.
        mode: the number format and memory format that the network ran in.
        report: what was tried and found, a line; empty where nothing had to be chosen.
    """

    batch_size: int | None
    mode: Mode
    report: str


def choose_plan(
    run: BatchRun,
    pool: Any,
    index: np.ndarray | range,
    *,
    amp: str | None,
    batch_size: int | Literal["auto"] | None,
    memory_limit: int | None,
) -> Plan:
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
        size, report = _batch_size(replace(run, mode=mode), pool, index, memory_limit)
        reports.append(report)
    else:
        size = batch_size
    if amp == "auto":
        mode, report = _mode(run, pool, index, size or MIN_SAMPLES)
        reports.append(report)
    return Plan(size, mode, "; ".join(reports))


def _batch_size(
    run: BatchRun, pool: Any, index: np.ndarray | range, memory_limit: int | None
) -> tuple[int, str]:
    if memory_limit is None:
        memory_limit = int(_MEMORY_SHARE * available_memory(run.device))
    growth = MemoryGrowth(run.device)
    # Only the relative rates of the sizes matter. So the search takes as few steps as it can, and a
    # few samples are repeated instead of reading thousands.
    if isinstance(run.measure, LDR):
        search = run.measure.search
        search = replace(search, num_iters=0 if search.method == "direct" else 1)
        run = replace(run, measure=replace(run.measure, search=search))
    x = first_samples(pool, min(len(index), _READ))
    if len(x) == 0:
        return 1, "batch size 1 (the pool is empty)"
    run.check(x)

    def run_batch(size: int) -> None:
        rows = torch.arange(size, device="cpu") % len(x)
        run(x[rows], rows).table.cpu()  # which waits for the device

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
        tried = replace(run, mode=mode)
        value = tried.columns.index("value")
        return np.concatenate([tried(x[p], keys[p]).table[:, value].cpu() for p in parts])

    try:
        mode, found = choose_mode(run_mode, others)
    except torch.OutOfMemoryError:
        return Mode(), "float32 (the trial of other formats ran out of memory)"
    return mode, f"{mode} ({'; '.join(f'{m}: {text}' for m, text in found.items())})"
