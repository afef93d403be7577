"""The pool of unlabelled samples, read in batches, each sample with its position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from vaal_ext.pool.loader import loader_like, no_tensor, read, with_positions

__all__ = [
    "batches_at",
    "first_samples",
    "has_parts",
    "pool_batches",
    "pool_part",
    "pool_size",
    "spread_batches",
    "spread_samples",
]


def pool_size(pool: Any) -> int:
    """The number of samples of a tensor, an array, a map-style Dataset or a DataLoader's dataset.

    Raises:
        TypeError: none of these (an IterableDataset is none: its samples have no index), a masked
            array, or a tuple of arrays.
        ValueError: a tensor or array without a batch dimension.
    """
    data: Any = pool.dataset if isinstance(pool, DataLoader) else pool
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError(
            "the pool is a masked array, whose mask would count for nothing: give the samples that "
            "are there, as pool.data[~np.ma.getmaskarray(pool).reshape(len(pool), -1).any(1)]"
        )
    if isinstance(data, Tensor | np.ndarray):
        if data.ndim == 0:
            raise ValueError("the pool must have samples along its first dimension, got a scalar")
        return len(data)
    if isinstance(data, tuple) and any(isinstance(part, Tensor | np.ndarray) for part in data):
        raise TypeError(
            f"the pool is a tuple of {len(data)}: give its samples x alone, or a TensorDataset"
        )
    if hasattr(data, "to_numpy"):
        raise TypeError(
            f"the pool is a {type(data).__name__}: give its numbers, as pool.to_numpy('float32')"
        )
    if isinstance(data, IterableDataset | dict) or not (
        hasattr(data, "__getitem__") and hasattr(data, "__len__")
    ):
        raise TypeError(
            "the pool must be a tensor, an array, a map-style Dataset (with __getitem__ and "
            f"__len__) or a DataLoader of one, got {type(data).__name__}. For a stream without "
            "indices call ldr_scores(model, x, sample_index=...) on its batches"
        )
    return len(data)


def first_samples(pool: Any, count: int) -> Tensor:
    """The first `count` samples of the pool: x [count, ...] in its dtype, to try things on.

    Samples that are None are passed over; fewer than `count` (of shape [0], if there is none) come
    where the pool has fewer. They are read in this process and apart from the pool's own reading; a
    DataLoader gives its collate_fn, and its sampler is not asked. Errors as for `pool_batches`.
    """
    size, start, parts = pool_size(pool), 0, []
    while start < size and count > 0:
        stop = min(start + count, size)
        x = _samples_at(pool, range(start, stop))
        start, count = stop, count - len(x)
        if len(x):
            parts.append(x)
    return torch.cat(parts) if parts else torch.empty(0, device="cpu")


def spread_samples(pool: Any, count: int) -> Tensor:
    """`count` samples evenly spread over the pool, from its first on, or all where it has no more:
    x [n, ...] in its dtype, without those that are None. Read as by :func:`first_samples`, with its
    errors."""
    return _samples_at(pool, _spread(pool_size(pool), count))


def spread_batches(
    pool: Any, count: int, batch_size: int, num_workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples of :func:`spread_samples`, with their positions in the pool, int64 [B].

    They are read as :func:`pool_batches` reads the pool (in a DataLoader's batches, by its
    workers), and apart from it: a loader's sampler and its generator are not asked.

    Raises:
        ValueError, TypeError: see :func:`pool_batches`; a DataLoader that has no parts, see
            :func:`pool_part`.
    """
    positions = np.array(_spread(pool_size(pool), count), dtype=np.int64)
    if isinstance(pool, DataLoader):
        _require_whole(pool)
    for x, place in batches_at(pool, positions, batch_size, num_workers):
        yield x, torch.from_numpy(positions)[place]


def batches_at(
    pool: Any,
    positions: np.ndarray,
    batch_size: int,
    num_workers: int,
    missing: list[int] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples at these positions of the pool (int64 [M], distinct), with their places 0 to M-1
    in `positions`, int64 [B]; the places of those that are None are appended to `missing`.

    They are read in that order, as :func:`pool_batches` reads the pool (in a DataLoader's batches,
    by its workers) and with its errors, but a loader's sampler and its generator are not asked.
    """
    if len(positions) == 0:
        return
    if isinstance(pool, Tensor | np.ndarray):
        for start in range(0, len(positions), batch_size):
            rows = positions[start : start + batch_size]
            if isinstance(pool, Tensor):
                x = pool.index_select(0, torch.from_numpy(rows).to(pool.device))
            else:
                x = _tensor(pool[rows])
            yield x, torch.arange(start, start + len(rows), device="cpu")
        return
    if isinstance(pool, DataLoader):
        # A sampler of batches may say how large they are; where it does not, 256 is a guess.
        batch_size = pool.batch_size or getattr(pool.batch_sampler, "batch_size", None) or 256
        num_workers = pool.num_workers
    num_workers = min(num_workers, -(-len(positions) // batch_size))
    some: Any
    if isinstance(pool, DataLoader):
        apart = {"num_workers": num_workers, "generator": torch.Generator()}
        part = Subset(pool.dataset, positions.tolist())
        some = loader_like(pool, part, pool.collate_fn, batch_size=batch_size, **apart)
    else:
        some = Subset(pool, positions.tolist())
    yield from pool_batches(some, batch_size, num_workers, missing)


def _spread(size: int, count: int) -> list[int]:
    count = min(count, size)
    return [i * size // count for i in range(count)]


def _samples_at(pool: Any, positions: Sequence[int]) -> Tensor:
    """The samples of the pool at these positions, at least one, without those that are None."""
    data = pool.dataset if isinstance(pool, DataLoader) else pool
    if isinstance(data, Tensor | np.ndarray):
        view = isinstance(positions, range)
        some: Any = data[positions[0] : positions[-1] + 1] if view else data[positions]
    else:
        collate = pool.collate_fn if isinstance(pool, DataLoader) else None
        some = DataLoader(Subset(data, positions), batch_size=len(positions), collate_fn=collate)
    none = torch.empty(0, device="cpu")
    return next((x for x, _ in pool_batches(some, len(positions))), none)


def pool_part(pool: Any, start: int, stop: int) -> Any:
    """The pool of samples start to stop of the tensor, array or dataset, 0 <= start <= stop <= N.

    Nothing is read or copied. The whole pool is given back as it is; of a DataLoader the part is
    one in the order of the dataset, with its batch size, workers and collate_fn.

    Raises:
        ValueError: a DataLoader whose sampler may leave out samples, so that it is not known which
            of them belong to the part. TypeError: see `pool_size`.
    """
    if (start, stop) == (0, pool_size(pool)):
        return pool
    if isinstance(pool, Tensor | np.ndarray):
        return pool[start:stop]
    if not isinstance(pool, DataLoader):
        return Subset(pool, range(start, stop))
    _require_whole(pool)
    part = Subset(pool.dataset, range(start, stop))
    return loader_like(pool, part, pool.collate_fn, batch_size=pool.batch_size)


def _require_whole(loader: DataLoader[Any]) -> None:
    """ValueError: see :func:`pool_part`."""
    if not has_parts(loader):
        raise ValueError(
            "a pool that is scored in parts must be a DataLoader over its whole dataset (shuffled "
            f"or not), got one with {type(loader.sampler).__name__}: give a Subset of the dataset"
        )


def has_parts(pool: Any) -> bool:
    """Whether all samples of the pool are there: a DataLoader's sampler may leave some out."""
    if not isinstance(pool, DataLoader):
        return True
    loader = pool
    plain = type(loader.sampler) is SequentialSampler or (
        type(loader.sampler) is RandomSampler
        and not loader.sampler.replacement
        and loader.sampler.num_samples == pool_size(loader.dataset)
    )
    return loader.batch_size is not None and plain


def pool_batches(
    pool: Any, batch_size: int, num_workers: int = 0, missing: list[int] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (x [B, ...], position int64 [B] on the CPU) until the pool is through.

    `position` is the place of each sample in the tensor or the dataset. A DataLoader keeps its
    order (a shuffled one too), batch size, workers and collate_fn, but its `drop_last` is not
    followed, and `batch_size` and `num_workers` are not for it. Batches of the form (x, y, ...)
    give their x. Of an array (a memory map, say) only one batch at a time is copied to memory.

    A sample of a Dataset that is None is not there (an image that cannot be read, say): no batch
    has it, and its position is appended to `missing`.

    Raises:
        TypeError: see `pool_size`; also batches that are neither x nor (x, y, ...), and arrays of
            a dtype that torch lacks.
        ValueError: a DataLoader that iterates in its own way or without batches; a batch whose
            length is not the number of its samples; a sample that comes twice.
    """
    size = pool_size(pool)
    if isinstance(pool, Tensor | np.ndarray):
        for start in range(0, size, batch_size):
            x = pool[start : start + batch_size]
            yield _tensor(x), torch.arange(start, start + len(x), device="cpu")
        return
    loader = pool
    if not isinstance(pool, DataLoader):
        loader = DataLoader(pool, batch_size=batch_size, num_workers=num_workers)
    seen = np.zeros(size, dtype=bool)
    for position, batch, absent in read(with_positions(loader)):
        if missing is not None:
            missing += absent
        if not len(position):
            continue
        x = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(x, Tensor):
            raise TypeError(no_tensor(batch, "a batch"))
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


def _tensor(x: Tensor | np.ndarray) -> Tensor:
    """The tensor as it is; an array in memory of its own, with the machine's byte order."""
    if isinstance(x, Tensor):
        return x
    return torch.from_numpy(np.array(x, dtype=x.dtype.newbyteorder("=")))
