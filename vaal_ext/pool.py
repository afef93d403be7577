"""The pool of unlabelled samples: reading it in batches, and the file of its scores."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from vaal_ext.atomic import write_atomically

__all__ = ["PoolScores", "pool_batches", "pool_size"]

_DTYPES = {
    "index": np.int64,
    "ldr": np.float32,
    "pseudo_label": np.int64,
    "entropy": np.float32,
    "margin": np.float32,
    "posterior_mean": np.float64,
}


@dataclass(frozen=True, eq=False)
class PoolScores:
    """What a model says about a pool of N samples and C classes, as NumPy arrays.

    Row i of every array belongs to the i-th sample of the pool.

    Attributes:
        index: int64 [N], the dataset index of each sample (it keys the sample's start vector).
        ldr: float32 [N], Local Distributional Roughness in nats; NaN where it was not computed.
        pseudo_label: int64 [N], argmax of the posterior; -1 where the logits were not finite.
        entropy: float32 [N], of the posterior, in nats; NaN where the logits were not finite.
        margin: float32 [N], largest minus second largest posterior; NaN likewise.
        posterior_mean: float64 [C], the mean posterior over the samples with finite logits; NaN
            when there is none, and empty (C = 0) for an empty pool.

    Raises:
        TypeError: an array of another dtype. ValueError: not 1-D, lengths that differ, or a
            pseudo label outside -1..C-1.
    """

    index: np.ndarray
    ldr: np.ndarray
    pseudo_label: np.ndarray
    entropy: np.ndarray
    margin: np.ndarray
    posterior_mean: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                came = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"{name} must be a {np.dtype(dtype)} array, got {came}")
            if array.ndim != 1:
                raise ValueError(f"{name} must be 1-D, got shape {array.shape}")
            if name != "posterior_mean" and len(array) != len(self.index):
                raise ValueError(
                    f"{name} has {len(array)} entries where index has {len(self.index)}"
                )
        labels = self.pseudo_label
        if len(labels) and not (labels.min() >= -1 and labels.max() < self.num_classes):
            raise ValueError(
                f"pseudo_label must lie in -1..{self.num_classes - 1} (posterior_mean has "
                f"{self.num_classes} classes), got {labels.min()}..{labels.max()}"
            )

    @property
    def num_samples(self) -> int:
        return len(self.index)

    @property
    def num_classes(self) -> int:
        return len(self.posterior_mean)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the arrays to `path` (an .npz without pickles), whole or not at all."""
        with write_atomically(path) as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PoolScores:
        """Reads what `save` wrote. Nothing in the file is ever unpickled.

        Raises:
            ValueError: the file is no .npz, is truncated or damaged, holds pickled objects, lacks
                an array, or its arrays do not fit together.
            OSError: it cannot be opened.
        """
        path = Path(path)
        with open(path, "rb") as file:
            try:
                return cls(**_read_npz(file))
            except Exception as error:  # a damaged .npz makes NumPy raise a dozen kinds
                reason = str(error).partition("\n")[0] or type(error).__name__
                if "pickle" in reason:
                    reason = "it holds pickled objects, which are never loaded"
                raise ValueError(f"{path} is no readable file of pool scores: {reason}") from None


def _read_npz(file: Any) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no .npz (zip) file, or it is truncated")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        missing = [name for name in _DTYPES if name not in archive.files]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return {name: archive[name] for name in _DTYPES}


def pool_size(pool: Any) -> int:
    """The number of samples of a tensor, a map-style Dataset or a DataLoader's dataset.

    Raises:
        TypeError: none of these (an IterableDataset is none: its samples have no index).
        ValueError: a tensor without a batch dimension.
    """
    data = pool.dataset if isinstance(pool, DataLoader) else pool
    if isinstance(data, Tensor):
        if data.ndim == 0:
            raise ValueError("the pool must have samples along its first dimension, got a scalar")
        return len(data)
    if isinstance(data, IterableDataset | dict) or not (
        hasattr(data, "__getitem__") and hasattr(data, "__len__")
    ):
        raise TypeError(
            "the pool must be a tensor, a map-style Dataset (with __getitem__ and __len__) or a "
            f"DataLoader of one, got {type(data).__name__}. For a stream without indices call "
            "ldr_scores(model, x, sample_index=...) on its batches"
        )
    return len(data)


def pool_batches(pool: Any, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (x [B, ...], position int64 [B] on the CPU) until the pool is through.

    `position` is the place of each sample in the tensor or the dataset. A DataLoader keeps its
    order (a shuffled one too), batch size, workers and collate_fn, but its `drop_last` is not
    followed, and `batch_size` is not for it. Batches of the form (x, y, ...) give their x.

    Raises:
        TypeError: see `pool_size`; also batches that are neither x nor (x, y, ...).
        ValueError: a DataLoader that iterates in its own way or without batches; a batch whose
            length is not the number of its samples; a sample that comes twice.
    """
    size = pool_size(pool)
    if isinstance(pool, Tensor):
        for start in range(0, size, batch_size):
            x = pool[start : start + batch_size]
            yield x, torch.arange(start, start + len(x))
        return
    loader = pool if isinstance(pool, DataLoader) else DataLoader(pool, batch_size=batch_size)
    seen = np.zeros(size, dtype=bool)
    for position, batch in _with_positions(loader):
        x = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(x, Tensor):
            raise TypeError(
                "the pool's samples must be a tensor x or a tuple (x, y, ...) with x a tensor, "
                f"got a batch of type {type(batch).__name__}"
            )
        if x.ndim == 0 or len(x) != len(position):
            raise ValueError(
                f"the loader's collate_fn made x of shape {tuple(x.shape)} from {len(position)} "
                "samples: expected them along the first dimension"
            )
        rows = position.numpy()
        if seen[rows].any() or len(np.unique(rows)) != len(rows):
            raise ValueError(
                "the loader's sampler draws a sample more than once (with replacement?): the "
                "pool's samples must be distinct"
            )
        seen[rows] = True
        yield x, position


class _Indexed(Dataset):
    """A dataset whose items carry their position."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        return int(position), self.dataset[position]

    def __getitems__(self, positions: list[int]) -> list[tuple[int, Any]]:
        together = getattr(self.dataset, "__getitems__", None)
        items = together(positions) if together else [self.dataset[i] for i in positions]
        return [(int(i), item) for i, item in zip(positions, items, strict=True)]


class _CollateIndexed:
    """The loader's own collate_fn on the items, their positions besides (a class: it pickles)."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, batch: list[tuple[int, Any]]) -> tuple[Tensor, Any]:
        positions, items = zip(*batch, strict=True)
        return torch.tensor(positions), self.collate(list(items))


def _with_positions(loader: DataLoader) -> DataLoader:
    """The same loader, yielding (positions, batch): only so a shuffled one can be followed."""
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise ValueError(
            f"{type(loader).__name__} iterates in its own way, so that the order of its samples "
            "is not known: pass its dataset, or a torch.utils.data.DataLoader"
        )
    if loader.batch_sampler is None:
        raise ValueError(
            "a DataLoader with batch_size=None makes no batches of samples: pass its dataset, or "
            "a DataLoader with a batch_size"
        )
    if loader.batch_size is None:
        order: dict[str, Any] = {"batch_sampler": loader.batch_sampler}
    else:
        order = {"batch_size": loader.batch_size, "sampler": loader.sampler}
    return DataLoader(
        _Indexed(loader.dataset),
        **order,
        collate_fn=_CollateIndexed(loader.collate_fn),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )
