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
    """What the pool calls samples start to stop: [stop - start], of dtype str, which
    takes 4 bytes a letter of the longest of them for each.

    They are the dataset's attribute ``names``, a sequence of one str a sample; those of a Subset
    are its dataset's, those of a ConcatDataset its datasets', where all have some. None where there
    are none (or ``names`` is something else, those of the classes, say).
    """
    data = pool.dataset if isinstance(pool, DataLoader) else pool
    name = None if isinstance(data, Tensor) else _name_of(data)
    if name is None or start == stop:
        return None
    names = np.asarray([name(position) for position in range(start, stop)])
    return names if names.dtype.kind == "U" and names.ndim == 1 else None


def _name_of(data: Any) -> Callable[[int], Any] | None:
    """Position -> name, or None. That names are texts is looked at where they are used."""
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
