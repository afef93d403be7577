"""A model run over a whole pool: batches in, NumPy columns out."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaal_ext.backend import load_backend, require_backend
from vaal_ext.checks import index_array, require_int
from vaal_ext.cuda.graphs import replayed, require_cuda_graph
from vaal_ext.cuda.transfers import device_batches
from vaal_ext.network.device import device_named
from vaal_ext.network.inner_point import Encode
from vaal_ext.network.logits import LogitsFn, forward_of
from vaal_ext.network.pixels import PixelScale
from vaal_ext.network.state import Model, borrowed, home_device, tensors_of, unwrapped
from vaal_ext.perturbation.measure import Measure, Posterior
from vaal_ext.pool.batch_run import BatchRun
from vaal_ext.pool.batches import batches_at, pool_batches, pool_part, pool_size
from vaal_ext.pool.first_batch import Looks, WholePool
from vaal_ext.pool.names import pool_names
from vaal_ext.pool.plan import Plan, choose_plan
from vaal_ext.pool.results import Columns, results
from vaal_ext.pool.score_table import ScoreTable
from vaal_ext.pool.scores import PoolScores
from vaal_ext.progress import progress_bar, work_begins

__all__ = ["Part", "Piece", "PoolRun"]


class Piece(NamedTuple):
    """Samples of a pool that are run together.

    Attributes:
        samples: a range of the pool, or the positions, int64 [M], in the order they are read.
        look: whether the first of them, and the network, are looked at before. Where several
            processes or several commands score one pool, only one of them looks.
    """

    samples: range | np.ndarray
    look: bool = False


class Part(NamedTuple):
    """The result for a piece of a pool.

    Attributes:
        scores: of N samples.
        values: float32 [N], of the measure; NaN where there is none.
        curvature: float32 [N], of the clean posterior; NaN where it was not asked for.
        failed: how many of the samples the measure failed on, see
            :class:`vaal_ext.perturbation.measure.Measured`.
        position: int64 [N], their places in the piece: all, unless a loader's sampler leaves some
            out.
    """

    scores: PoolScores
    values: np.ndarray
    curvature: np.ndarray
    failed: int
    position: np.ndarray


@dataclass
class PoolRun:
    """A model made ready to run over pools; for the attributes see :class:`vaal_ext.LDRScorer`.

    `measure` is what is measured of every sample; where `look` is False no piece is looked at.
    """

    model: Model
    measure: Measure
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
    encode: Encode | None = None
    look: bool = True

    def __post_init__(self) -> None:
        self.model = unwrapped(self.model)
        if self.encode is not None:
            self.encode = unwrapped(self.encode)
        if self.batch_size != "auto":
            require_int("batch_size", self.batch_size, 1)
        if self.memory_limit is not None:
            require_int("memory_limit", self.memory_limit, 1)
        require_int("num_workers", self.num_workers, 0)
        if not isinstance(self.look, bool):
            raise TypeError(f"look must be True or False, got {self.look!r}")
        if self.on_nonfinite not in ("raise", "skip"):
            raise ValueError(f"on_nonfinite must be 'raise' or 'skip', got {self.on_nonfinite!r}")
        names = (None, "bf16", "fp16", "auto")[: 3 if isinstance(self.measure, Posterior) else 4]
        if self.amp not in names:
            known = ", ".join(repr(name) for name in names[:-1])
            raise ValueError(f"amp must be {known} or {names[-1]!r}, got {self.amp!r}")
        require_backend(self.backend)
        if self.compile_model and self.measure.settings.get("method") == "fisher":
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
        self._looks = Looks()

    def index(self, pool: Any, sample_index: Any) -> np.ndarray | range:
        """The identity of each sample of the pool, int64 [N]; by default a range, of no size."""
        size = pool_size(pool)
        return range(size) if sample_index is None else index_array(sample_index, size)

    def plan(self, pool: Any, index: np.ndarray | range) -> Plan:
        """How the pool is to be run, by trials on its first samples where something is "auto".

        `index` is int64 [N], the identity of each sample of the pool.
        """
        device = self._place(pool)
        if "auto" in (self.amp, self.batch_size):
            work_begins()
        with self._lent(device):
            return choose_plan(
                self._batch_run(device),
                pool,
                index,
                amp=self.amp,
                batch_size=None if isinstance(pool, DataLoader) else self.batch_size,
                memory_limit=self.memory_limit,
            )

    def parts(
        self,
        plan: Plan,
        pool: Any,
        index: np.ndarray | range,
        pieces: Iterable[Piece],
        total: int | None,
        progress: bool,
        measure: Measure | None = None,
        curvature: bool = False,
    ) -> Generator[Part, None, None]:
        """Yields the result for each piece of the pool. `pieces` is asked for the next piece only
        when the last one is done.

        The model stays borrowed until the iterator has ended or is closed.

        Args:
            plan: how the pool is run.
            index: int64 [N], the identity of each sample of the pool.
            total: what the bar counts to.
            measure: replaces the run's own.
            curvature: whether the parts have the clean posterior's curvature.
        """
        if progress and plan.report:
            print(plan.report, file=sys.stderr)
        device = self._place(pool)
        run = replace(self._batch_run(device), mode=plan.mode)
        # The look runs the plain model: a compiled one would be compiled for these few samples.
        looked_at = replace(run, model=self.model)
        run = replace(run, measure=measure or self.measure, curvature=curvature)
        read = [tensor for module in self.modules for tensor in tensors_of(module)]
        compute = replayed(run, device, self.cuda_graph, read)
        bar = progress_bar(total=total, show=progress, desc=run.measure.label, unit="sample")
        batch_size = plan.batch_size or 1
        with self._lent(device), bar:
            for samples, look in pieces:
                missing: list[int] = []
                reading = batch_size, self.num_workers, missing
                if isinstance(samples, range):
                    bounds = samples.start, samples.stop
                    part_index = np.asarray(index[slice(*bounds)], dtype=np.int64)
                    names = pool_names(pool, *bounds)
                    batches = pool_batches(pool_part(pool, *bounds), *reading)
                else:
                    part_index = samples if isinstance(index, range) else index[samples]
                    names, batches = None, batches_at(pool, samples, *reading)
                if look and self.look:
                    whole = WholePool(pool, index, batch_size, self.num_workers)
                    lent = partial(self._lent, device)
                    batches = self._looks.at(looked_at, batches, part_index, whole, lent, progress)
                table = ScoreTable(part_index, run.measure.column, names)
                batches = device_batches(batches, device)
                for position, columns, mean in results(run, compute, batches, part_index):
                    columns = self._checked(run, columns, part_index[position])
                    table.enter(position, columns, mean)
                    bar.update(len(position))
                table.leave_out(missing)
                bar.update(len(missing))
                scores = table.scores()  # first: it shortens the columns to what has come in
                yield Part(scores, table.values, table.curvature, table.failed, table.position)

    def _batch_run(self, device: torch.device) -> BatchRun:
        load_backend(self.backend)
        return BatchRun(
            self._network,
            self.logits_fn,
            device,
            self.measure,
            self.backend,
            self._pixels,
            self.encode,
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
        home, asked = home_device(self.model), self._device
        if asked is None:
            return home or (pool.device if isinstance(pool, Tensor) else torch.device("cpu"))
        if home is None:
            return asked
        if asked.type != home.type or (asked.index is not None and asked.index != home.index):
            raise ValueError(f"the model lies on {home}: move it before scoring on {asked}")
        return home  # "cuda" is where the model is, whatever the current device

    def _checked(self, run: BatchRun, columns: Columns, index: np.ndarray) -> Columns:
        """The columns, with what stands for logits that are not finite.

        Raises:
            ValueError: there are such logits, and on_nonfinite is "raise".
        """
        lost = np.logical_or.reduce([np.isnan(columns[name]) for name in run.columns])
        if lost.any():
            if self.on_nonfinite == "raise":
                first, count = index[np.argmax(lost)], np.count_nonzero(lost)
                raise ValueError(
                    f"sample {first}: the model's logits are not finite ({count} such in its batch "
                    f"of {len(index)}); on_nonfinite='skip' leaves them without a score"
                )
            blank = {"pseudo_label": -1.0, "failed": 0.0}
            for name in columns:
                columns[name] = np.where(lost, blank.get(name, np.nan), columns[name])
        return columns
