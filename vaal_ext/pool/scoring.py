"""A model run over a whole pool: batches in, NumPy columns out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaal_ext.backend import load_backend, require_backend
from vaal_ext.checks import require_int
from vaal_ext.device.graphs import BatchFn, replayed, require_cuda_graph
from vaal_ext.device.named import device_named
from vaal_ext.device.transfers import delayed, device_batches, to_device, to_host
from vaal_ext.forward import LogitsFn, finite_rows, forward_of
from vaal_ext.model_state import Model, borrowed, home_device, unwrapped
from vaal_ext.pool.batches import batches_at, pool_batches, pool_part, pool_size
from vaal_ext.pool.execution import BatchRun, Execution, Probe, choose_execution
from vaal_ext.pool.first_batch import Looks, WholePool
from vaal_ext.pool.inner_point import Encode
from vaal_ext.pool.names import pool_names
from vaal_ext.pool.pixels import PixelScale
from vaal_ext.pool.scores import PoolScores, ScoreTable
from vaal_ext.pool.trial import Mode
from vaal_ext.progress import progress_bar, work_begins

__all__ = ["Part", "PoolRun", "index_array"]

# What the bar of a measure says.
_BAR = {"ldr": "LDR", "perturbation_norm": "DeepFool"}

# How many batches' results may still be on their way to the host while the next batch is queued.
_RESULTS_BEHIND = {"cuda": 1}


class Part(NamedTuple):
    """What a part of a pool came to: its scores, how many of its samples are flat, and the places
    in the part, int64 [N], of the N samples that the scores are of: all, unless a loader's sampler
    leaves some out."""

    scores: PoolScores
    flat: int
    position: np.ndarray


@dataclass
class PoolRun:
    """A model made ready to run over pools; for the attributes see :class:`vaal_ext.LDRScorer`.

    `probe` is what fills the column `measure` of the scores (the power iteration "ldr", DeepFool
    "perturbation_norm"), or None for the posterior alone (ldr all NaN). `chosen` says how the last
    pool was run. Of several processes, or sittings, that score one pool one looks at its samples:
    ``looks.expect()`` is called there, before `parts`.
    """

    model: Model
    probe: Probe | None
    logits_fn: LogitsFn | None
    device: torch.device | str | None
    amp: str | None
    batch_size: int | Literal["auto"]
    on_nonfinite: str
    backend: str
    num_workers: int
    normalize: Any
    memory_limit: int | None = None
    compile_model: bool = False
    cuda_graph: bool | str = False
    measure: str = "ldr"
    encode: Encode | None = None
    look: bool = True
    chosen: Execution | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.model = unwrapped(self.model)
        if self.encode is not None:
            self.encode = unwrapped(self.encode)
        if self.batch_size != "auto":
            require_int("batch_size", self.batch_size, 1)
        if self.memory_limit is not None:
            require_int("memory_limit", self.memory_limit, 1)
        require_int("num_workers", self.num_workers, 0)
        if self.on_nonfinite not in ("raise", "skip"):
            raise ValueError(f"on_nonfinite must be 'raise' or 'skip', got {self.on_nonfinite!r}")
        names = (None, "bf16", "fp16") if self.probe is None else (None, "bf16", "fp16", "auto")
        if self.amp not in names:
            known = ", ".join(repr(name) for name in names[:-1])
            raise ValueError(f"amp must be {known} or {names[-1]!r}, got {self.amp!r}")
        require_backend(self.backend)
        if self.compile_model and getattr(self.probe, "method", None) == "fisher":
            raise ValueError(
                "compile_model must be False with method='fisher': the gradient of a compiled "
                "network cannot be differentiated"
            )
        require_cuda_graph(self.cuda_graph)
        forward_of(self.model, self.logits_fn)  # which refuses what cannot be called
        if self.encode is not None and not callable(self.encode):
            raise TypeError(f"encode must be callable, got {type(self.encode).__name__}")
        self._device = None if self.device is None else device_named(self.device)
        self._pixels = None if self.normalize is None else PixelScale(self.normalize)
        self._network = torch.compile(self.model) if self.compile_model else self.model
        self.looks = Looks(self.look)

    def score(self, pool: Any, sample_index: Any, progress: bool) -> tuple[PoolScores, int]:
        """The scores of the pool, and how many samples are flat."""
        index = self.index(pool, sample_index)
        self.choose(pool, index)
        self.looks.expect()
        whole = [(0, len(index))]
        (part,) = self.parts(pool, index, whole, len(index), progress)
        return part.scores, part.flat

    def index(self, pool: Any, sample_index: Any) -> np.ndarray | range:
        """The identity of each sample of the pool, int64 [N]; by default a range, of no size."""
        size = pool_size(pool)
        return range(size) if sample_index is None else index_array(sample_index, size)

    def choose(self, pool: Any, index: np.ndarray | range) -> Execution:
        """Settles `chosen`, by trials on the pool's first samples where something is "auto".

        `index` is int64 [N], the identity of each sample of the pool.
        """
        device = self._place(pool)
        if "auto" in (self.amp, self.batch_size):
            work_begins()
        with self._lent(device):
            chosen = choose_execution(
                self._batch_run(device),
                pool,
                index,
                amp=self.amp,
                batch_size=None if isinstance(pool, DataLoader) else self.batch_size,
                memory_limit=self.memory_limit,
            )
        self.chosen = chosen
        return chosen

    def parts(
        self,
        pool: Any,
        index: np.ndarray | range,
        wanted: Iterable[tuple[int, int] | np.ndarray],
        total: int | None,
        progress: bool,
        clean: Probe | None = None,
    ) -> Generator[Part, None, None]:
        """Yields the scores of each part of the pool that is wanted: samples start to stop for a
        (start, stop), or those at the positions of an array, int64 [M]. `wanted` is asked for the
        next one when the last is done.

        `index` is int64 [N], the identity of each sample. The pool is run in the way `chosen`. The
        model stays lent until the iterator is through or closed. `total` is what the bar counts to.
        With `clean` that fills the column "ldr" in the place of the run's own probe.
        """
        chosen = self.chosen
        assert chosen is not None, "choose comes first"
        if progress and chosen.report:
            print(chosen.report, file=sys.stderr)
        device = self._place(pool)
        run = self._batch_run(device)
        # Not as compiled: that would be compiled for these few samples.
        eager = replace(run, model=self.model)
        if clean is not None:
            run = replace(run, probe=clean)
        compute = replayed(partial(self._columns, run, chosen.mode), device, self.cuda_graph)
        what = _BAR[self.measure] if run.probe is self.probe is not None else "posterior"
        bar = progress_bar(total=total, show=progress, desc=what, unit="sample")
        behind = _RESULTS_BEHIND.get(device.type, 0)
        all_of_it = WholePool(pool, index, chosen.batch_size or 1, self.num_workers)
        with self._lent(device), bar:
            for some in wanted:
                missing: list[int] = []
                reading = chosen.batch_size or 1, self.num_workers, missing
                if isinstance(some, np.ndarray):
                    part_index = some if isinstance(index, range) else index[some]
                    names, batches = None, batches_at(pool, some, *reading)
                else:
                    start, stop = some
                    part_index = np.asarray(index[start:stop], dtype=np.int64)
                    names = pool_names(pool, start, stop)
                    batches = pool_batches(pool_part(pool, start, stop), *reading)
                table = ScoreTable(part_index, self.measure, names)
                lent = partial(self._lent, device)
                batches = self.looks.at(
                    eager, batches, part_index, all_of_it, chosen.mode, lent, progress
                )
                results = self._results(run, compute, device_batches(batches, device), part_index)
                for position, columns, posterior in delayed(results, behind):
                    rows = self._checked(columns(), part_index[position])
                    table.enter(position, rows, posterior)
                    bar.update(len(position))
                table.leave_out(missing)
                bar.update(len(missing))
                yield Part(table.scores(), table.flat, table.position)

    def _batch_run(self, device: torch.device) -> BatchRun:
        load_backend(self.backend)
        return BatchRun(
            self._network, self.logits_fn, device, self.probe, self._pixels, self.encode
        )

    @property
    def modules(self) -> tuple[Any, Any]:
        """The model, and what encodes its input: a module (whose method `encode` may be) or not."""
        return self.model, getattr(self.encode, "__self__", self.encode)

    @contextmanager
    def _lent(self, device: torch.device) -> Iterator[None]:
        model, encoder = self.modules
        with borrowed(model, device), borrowed(encoder, device):
            yield

    def _place(self, pool: Any) -> torch.device:
        home = home_device(self.model)
        if self._device is None:
            return home or (pool.device if isinstance(pool, Tensor) else torch.device("cpu"))
        asked = self._device
        if home is not None and (
            asked.type != home.type or (asked.index is not None and asked.index != home.index)
        ):
            raise ValueError(f"the model lies on {home}: move it before scoring on {self._device}")
        return self._device

    def _results(
        self,
        run: BatchRun,
        compute: BatchFn,
        batches: Iterator[tuple[Tensor, Tensor]],
        index: np.ndarray,
    ) -> Iterator[tuple[np.ndarray, Callable[[], Tensor], Tensor]]:
        """Yields positions, columns on their way to the host, and the sum of the posteriors [C].

        Nothing here waits for the device.
        """
        fits = len(index)  # samples at a time: fewer, once a batch has not fitted into memory
        for x, position in batches:
            run.check(x)
            start = 0
            while start < len(x):
                part = position[start : start + fits].numpy()
                results = _results_if_they_fit(
                    compute, x[start : start + fits], index[part], run.device
                )
                if results is not None:
                    yield part, *results
                    start += len(part)
                    continue
                fits = max(1, len(part) // 2)
                warnings.warn(
                    f"out of memory with {len(part)} samples at a time: going on with {fits}",
                    RuntimeWarning,
                    stacklevel=6,
                )

    def _columns(
        self, run: BatchRun, mode: Mode, x: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pseudo label, entropy, margin, ldr, flat, finite as float64 [B, 6]; the logits [B, C]."""
        logits, ldr, flat = run(x, index, mode)
        with torch.no_grad():
            summary = load_backend(self.backend).posterior_summary(logits)
            finite = finite_rows(logits)
            if run.probe is not None:
                finite = finite & ~torch.isnan(ldr)
            # One copy to the host for everything; float64 holds every label exactly.
            columns = [column.double() for column in (*summary, ldr, flat, finite)]
            return torch.stack(columns, dim=1), logits

    def _checked(self, columns: Tensor, index: np.ndarray) -> np.ndarray:
        """The first five columns as rows [5, B], with what stands for logits that are not finite.

        Raises:
            ValueError: there are such logits, and on_nonfinite is "raise".
        """
        *kept, finite = columns.numpy().T
        rows, failed = np.stack(kept), np.flatnonzero(finite == 0)
        if len(failed) and self.on_nonfinite == "raise":
            raise ValueError(
                f"sample {index[failed[0]]}: the model's logits are not finite ({len(failed)} such "
                f"in its batch of {len(index)}); on_nonfinite='skip' leaves them without a score"
            )
        rows[:, failed] = np.array([[-1.0], [np.nan], [np.nan], [np.nan], [0.0]])
        return rows


def _results_if_they_fit(
    compute: BatchFn, x: Tensor, index: np.ndarray, device: torch.device
) -> tuple[Callable[[], Tensor], Tensor] | None:
    """See `PoolRun._results`; None where the device's memory is too small for so many samples."""
    try:
        columns, logits = compute(x.detach().to(device), to_device(torch.from_numpy(index), device))
        with torch.no_grad():
            posterior = torch.softmax(logits, dim=1, dtype=torch.float64)
            posterior = posterior.masked_fill(columns[:, 5:] == 0, 0.0).sum(0)
        return to_host(columns), posterior
    except torch.OutOfMemoryError:
        if len(x) == 1:
            raise
    # Out of the except block, where the traceback still held the tensors of the failed try.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None


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
