"""A DataLoader that says for every batch where in its dataset the samples lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

__all__ = ["loader_like", "no_tensor", "read", "with_positions"]


def with_positions(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same loader, which yields (positions int64 [B], batch, positions of what is None).

    Only so is it known which samples a shuffled loader has drawn.

    Raises:
        ValueError: a loader that iterates in its own way, or one without batches.
    """
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
    collate = _CollateIndexed(loader.collate_fn)
    return loader_like(loader, _Indexed(loader.dataset), collate, **order)


def loader_like(
    loader: DataLoader[Any], dataset: Any, collate: Callable[[list[Any]], Any], **changes: Any
) -> DataLoader[Any]:
    """A DataLoader of another dataset with the settings of this one, except for `changes`."""
    settings = {
        "num_workers": loader.num_workers,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "generator": loader.generator,
        "prefetch_factor": loader.prefetch_factor,
    }
    return DataLoader(dataset, collate_fn=collate, **(settings | changes))


def read(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches, whatever torch's default device is.

    A DataLoader draws its order, and makes tensors of numbers, on the default device. Here that is
    the CPU's, or the one of the loader's own generator, while the next batch is made; the caller
    has what was set.
    """
    device = torch.device("cpu") if loader.generator is None else loader.generator.device
    # The context makes every call of torch slower, so it is not entered where it changes nothing.
    own = torch.get_default_device().type == device.type
    with nullcontext() if own else device:
        batches = iter(loader)
    while True:
        with nullcontext() if own else device:
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch


class _Indexed(Dataset[tuple[int, Any]]):
    """A dataset whose items carry their position.

    A StopIteration out of the dataset would end the loader's iteration as if the pool were over.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        try:
            return int(position), self.dataset[position]
        except StopIteration as error:
            raise RuntimeError(
                f"the dataset raised StopIteration for sample {position} of its {len(self)}"
            ) from error

    def __getitems__(self, positions: list[int]) -> list[tuple[int, Any]]:
        together = getattr(self.dataset, "__getitems__", None)
        if together is None:
            return [self[i] for i in positions]
        try:
            items = together(positions)
        except StopIteration as error:
            raise RuntimeError(
                f"the dataset raised StopIteration for the samples {positions} of its {len(self)}"
            ) from error
        if len(items) != len(positions):
            raise ValueError(
                f"the dataset's __getitems__ gave {len(items)} samples for {len(positions)} "
                "positions"
            )
        return [(int(i), item) for i, item in zip(positions, items, strict=True)]


class _CollateIndexed:
    """The loader's own collate_fn, which gives the positions too (a class, since it is pickled)."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, batch: list[tuple[int, Any]]) -> tuple[Tensor, Any, list[int]]:
        absent = [position for position, item in batch if item is None]
        there = [(position, item) for position, item in batch if item is not None]
        numbers = [position for position, _ in there]
        positions = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        items = [item for _, item in there]
        # Torch's own way with them would end in an error of its own where one holds an image.
        if items and self.collate is default_collate and isinstance(items[0], Mapping):
            raise TypeError(no_tensor(items[0], "a sample"))
        return positions, self.collate(items) if items else None, absent


def no_tensor(found: Any, what: str) -> str:
    """The text of an error: `what` (a sample or a batch) holds no tensor x, and what to do then."""
    if not isinstance(found, Mapping):
        return (
            "the pool's samples must be a tensor x or a tuple (x, y, ...) with x a tensor, got "
            f"{what} of type {type(found).__name__}"
        )
    keys = {str(key): _extent(value) for key, value in found.items()}
    key = max(keys, key=keys.__getitem__, default="x")  # the largest is the likeliest to be meant
    return (
        f"the pool's samples must be a tensor x or a tuple (x, y, ...) with x a tensor, got {what} "
        f"that is a dict with the keys {', '.join(map(repr, keys))}. Say which of them the network "
        "gets: torch.utils.data.DataLoader(dataset, batch_size=256, collate_fn=lambda rows: "
        f"torch.stack([torch.as_tensor(row[{key!r}]) for row in rows])) is a pool"
    )


def _extent(value: Any) -> int:
    """How many numbers a value of a dict holds, or pixels of an image; 0 for anything else."""
    if isinstance(value, list):
        return len(value)
    sides = getattr(value, "shape", None) or getattr(value, "size", None)
    return math.prod(sides) if isinstance(sides, tuple) else 0
