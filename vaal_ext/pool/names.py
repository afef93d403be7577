"""What a pool calls its samples."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

__all__ = ["pool_names"]


def pool_names(pool: Any, start: int, stop: int) -> np.ndarray | None:
    """The names of samples start to stop: dtype str, [stop - start].

    Each takes 4 bytes for every letter of the longest. They are the dataset's attribute ``names``,
    a sequence of one str for each sample. A Subset has those of its dataset, and a ConcatDataset
    those of its datasets, if all have some. None where there are no names, or where ``names`` is
    something else, the names of the classes, say.
    """
    data = pool.dataset if isinstance(pool, DataLoader) else pool
    name = None if isinstance(data, Tensor) else _name_of(data)
    if name is None or start == stop:
        return None
    names = np.asarray([name(position) for position in range(start, stop)])
    return names if names.dtype.kind == "U" and names.ndim == 1 else None


def _name_of(data: Any) -> Callable[[int], Any] | None:
    """The function from position to name, or None. Its caller checks that names are texts."""
    names: Any = getattr(data, "names", None)
    listed = isinstance(names, Sequence | np.ndarray) and not isinstance(names, str)
    if listed and len(names) == len(data):
        return lambda position: names[position]
    if isinstance(data, Subset):
        whole = _name_of(data.dataset)
        return None if whole is None else lambda position: whole(data.indices[position])
    if isinstance(data, ConcatDataset):
        parts = [name for part in data.datasets if (name := _name_of(part)) is not None]
        starts = [0, *data.cumulative_sizes]

        def name_of(position: int) -> Any:
            part = bisect_right(starts, position) - 1
            return parts[part](position - starts[part])

        return name_of if len(parts) == len(data.datasets) else None
    return None
