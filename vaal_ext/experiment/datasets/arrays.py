"""Samples and labels from .npz and .npy files of the user's own; nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaal_ext.files.reading import load_npz, map_npy, require_memory

__all__ = ["labelled_samples", "mapped_samples", "read_npz", "samples"]

_MOST_CLASSES = 1_000_000  # what is above is an identifier: a network would have an output for each


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file by name, of any shape and dtype, without pickles.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds pickled objects, or unpacks to more than memory.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return load_npz(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a complete .npz of plain arrays (it may be truncated, or hold "
            f"pickled objects, which are never loaded): {error}"
        ) from error


def mapped_samples(path: Path) -> np.ndarray:
    """The samples of an .npy file, float32 or uint8 [N, ...], mapped: read when they are used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds pickled objects, or an array of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        x = map_npy(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a complete .npy of a plain array (an .npz of arrays is given as "
            f"npz:PATH): {error}"
        ) from error
    if x.dtype not in (np.float32, np.uint8) or x.ndim < 2 or x.size == 0:
        raise ValueError(
            f"{path} must hold float32 or uint8 samples [N, ...], got {x.dtype} {list(x.shape)}"
        )
    return x


def labelled_samples(
    arrays: dict[str, np.ndarray], x_key: str, y_key: str, path: Path
) -> tuple[Tensor, Tensor]:
    """The samples float32 [N, ...] and the labels int64 [N] under two keys.

    Raises:
        ValueError: see :func:`samples`; labels that are no integers [N] from 0 on.
    """
    x = samples(arrays, x_key, path)
    y = _entry(arrays, y_key, path)
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise ValueError(f"{path}: {y_key} must be integers [N], got {y.dtype} {list(y.shape)}")
    if len(x) != len(y):
        raise ValueError(
            f"{path}: {x_key} and {y_key} must have one length, got {len(x)} and {len(y)}"
        )
    if y.min() < 0 or y.max() >= _MOST_CLASSES:
        raise ValueError(
            f"{path}: {y_key} must be class numbers from 0 on, below {_MOST_CLASSES:,}, got "
            f"{y.min()} to {y.max()}"
        )
    return x, torch.from_numpy(y.astype(np.int64))


def samples(arrays: dict[str, np.ndarray], key: str, path: Path) -> Tensor:
    """The samples under a key, float32 [N, ...], finite.

    uint8 is read as pixels, the way torchvision's ToTensor does: divided by 255. Everything else
    is taken as it stands.

    Raises:
        ValueError: no such key, no finite numbers [N, ...] with at least one sample, or more than
            memory holds.
    """
    x = _entry(arrays, key, path)
    if x.dtype.kind not in "fiu" or x.ndim < 2:
        raise ValueError(f"{path}: {key} must be numbers [N, ...], got {x.dtype} {list(x.shape)}")
    if x.size == 0:
        raise ValueError(f"{path}: {key} must not be empty, got {list(x.shape)}")
    try:
        require_memory(x.size * (4 + 1))  # the float32, and whether each is finite
    except ValueError as error:
        raise ValueError(
            f"{path}: {key} is too large, {error}; score reads an .npy (npy:PATH) piece by piece"
        ) from None
    with np.errstate(over="ignore"):  # what does not fit float32 becomes inf, refused below
        scaled = x.astype(np.float32)
    if x.dtype == np.uint8:
        scaled /= np.float32(255.0)
    finite = np.isfinite(scaled).reshape(len(scaled), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{path}: {key} must be finite in float32, and sample {np.argmin(finite)} is not "
            f"({np.count_nonzero(~finite)} such); score reads an .npy (npy:PATH) and leaves these "
            "out with --on-nonfinite skip"
        )
    return torch.from_numpy(scaled)


def _entry(arrays: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    if key not in arrays:
        raise ValueError(f"{path} must have the key {key!r}, it has {sorted(arrays)}")
    return arrays[key]
