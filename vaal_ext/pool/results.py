"""The results of a pool's batches as they reach the host."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from vaal_ext.checks import warn_caller
from vaal_ext.cuda.graphs import let_go
from vaal_ext.cuda.recorder import BatchFn
from vaal_ext.cuda.transfers import to_device, to_host
from vaal_ext.pool.batch_run import BatchRun

__all__ = ["Columns", "results"]

# How many batches' results may still be on their way to the host while the next batch is queued.
_RESULTS_BEHIND = {"cuda": 1}

Columns = dict[str, np.ndarray]

# What stands for columns that were not asked for.
_NOT_ASKED = {"value": np.nan, "failed": 0.0, "curvature": np.nan}


def results(
    run: BatchRun,
    compute: BatchFn,
    batches: Iterator[tuple[Tensor, Tensor]],
    index: np.ndarray,
) -> Iterator[tuple[np.ndarray, Columns, Tensor]]:
    """Yields positions int64 [B], the columns of these samples on the host, each float [B] (those
    of `run`, and NaN, or 0 for "failed", for those that it lacks), and the sum of their posteriors,
    float64 [C] on the device.

    While a batch is queued on the device the results of the one before come to the host.
    """
    behind = _RESULTS_BEHIND.get(run.device.type, 0)
    waiting: deque[tuple[np.ndarray, Callable[[], Tensor], Tensor]] = deque()
    fits = len(index)  # samples at a time: fewer, once a batch has not fitted into memory
    for x, position in batches:
        run.check(x)
        start = 0
        while start < len(x):
            part = position[start : start + fits].numpy()
            try:
                keys = to_device(torch.from_numpy(index[part]), run.device)
                inputs = x[start : start + fits].detach().to(run.device)
                table, logits = compute(inputs, keys)
                waiting.append((part, to_host(table), _posterior_sum(table, logits)))
                del table, logits
                start += len(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            except RuntimeError as error:
                _explain(run, inputs.dtype, error)
                raise
            else:
                if len(waiting) > behind:
                    yield _on_host(run, *waiting.popleft())
                continue
            # Out of the except block, where the traceback still held the tensors of the try. The
            # recording goes too: it would serve smaller batches in the memory of the large one.
            let_go(compute)
            if run.device.type == "cuda":
                torch.cuda.empty_cache()
            fits = max(1, len(part) // 2)
            warn_caller(f"out of memory with {len(part)} samples at a time: going on with {fits}")
    for result in waiting:
        yield _on_host(run, *result)


def _explain(run: BatchRun, dtype: torch.dtype, error: RuntimeError) -> None:
    """TypeError where the network failed on samples of another dtype than its own."""
    network = run.model if run.encode is None else run.encode
    parameters = network.parameters() if isinstance(network, torch.nn.Module) else ()
    own = {p.dtype for p in parameters if p.is_floating_point()}
    if dtype.is_floating_point and own and dtype not in own:
        known = ", ".join(sorted(str(d).removeprefix("torch.") for d in own))
        came = str(dtype).removeprefix("torch.")
        raise TypeError(
            f"the network's parameters are {known} and the pool's samples {came}: convert the "
            f"pool, as pool.to(torch.{known.split(', ')[0]}) or array.astype (the network failed "
            f"with: {error})"
        ) from error


def _posterior_sum(table: Tensor, logits: Tensor) -> Tensor:
    """float64 [C], over the samples whose row of the table has no NaN: all was finite there."""
    with torch.no_grad():
        posterior = torch.softmax(logits, dim=1, dtype=torch.float64)
        # A sum is NaN where a number in it is: no column holds -inf.
        return posterior.masked_fill_(table.sum(1, keepdim=True).isnan(), 0.0).sum(0)


def _on_host(
    run: BatchRun, position: np.ndarray, table: Callable[[], Tensor], posterior: Tensor
) -> tuple[np.ndarray, Columns, Tensor]:
    columns = {name: np.full(len(position), value) for name, value in _NOT_ASKED.items()}
    columns |= dict(zip(run.columns, table().numpy().T, strict=True))
    return position, columns, posterior
