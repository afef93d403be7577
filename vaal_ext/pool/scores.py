"""The scores of a pool: the arrays, and their file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vaal_ext.files.atomic import write_atomically
from vaal_ext.files.reading import load_npz

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CLEAN", "DTYPES", "PoolScores", "joined", "score_text"]

# The arrays that all scores have, and of these the ones that the clean posterior of a sample gives.
DTYPES = {
    "index": np.int64,
    "ldr": np.float32,
    "pseudo_label": np.int64,
    "entropy": np.float32,
    "margin": np.float32,
    "posterior_mean": np.float64,
}
_OPTIONAL = {"perturbation_norm": np.float32, "name": np.str_}
CLEAN = ("pseudo_label", "entropy", "margin")


@dataclass(frozen=True, eq=False, repr=False)
class PoolScores:
    """What a model says about a pool of N samples and C classes, as NumPy arrays.

    Row i of every array belongs to the i-th sample of the pool. ``len(scores)`` is N.

    Attributes:
        index: int64 [N], the dataset index of each sample (it keys the sample's start vector).
        ldr: float32 [N], Local Distributional Roughness in nats; NaN where it was not computed, and
            -inf where the screen of :meth:`vaal_ext.LDRScorer.score` left the sample out: then the
            sample ranks below all that have an LDR.
        pseudo_label: int64 [N], argmax of the posterior; -1 where the logits were not finite, or
            there was no sample (see :meth:`vaal_ext.LDRScorer.score`).
        entropy: float32 [N], of the posterior, in nats; NaN where the logits were not finite.
        margin: float32 [N], largest minus second largest posterior; NaN likewise.
        posterior_mean: float64 [C], the mean posterior over the samples with finite logits; NaN
            when there is none, and empty (C = 0) for an empty pool.
        perturbation_norm: float32 [N], of DeepFool's perturbation, in units of the network's input;
            inf where it reached no other class, NaN where logits were not finite. None where
            DeepFool did not run; then it is not in the file either.
        name: str [N], what the pool calls each sample (its file, below the folder): the dataset's
            attribute ``names``. "" where it is not known; None, and not in the file, where the pool
            has no names. A file name that is not UTF-8 has its bytes as Python has them, as the
            surrogates of os.fsdecode. Each takes 4 bytes a letter of the longest of them.

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
    perturbation_norm: np.ndarray | None = None
    name: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, dtype in (DTYPES | _OPTIONAL).items():
            array = getattr(self, name)
            if array is None and name in _OPTIONAL:
                continue
            if not isinstance(array, np.ndarray) or not _is_of(array.dtype, dtype):
                came = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"{name} must be a {np.dtype(dtype).name} array, got {came}")
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

    def __len__(self) -> int:
        return self.num_samples

    def __repr__(self) -> str:
        left_out = int(self.left_out.sum())
        known = self.ldr[~(np.isnan(self.ldr) | self.left_out)]
        parts = [f"{self.num_samples} samples", f"{self.num_classes} classes"]
        if len(known):
            parts.append(
                f"ldr {known.min():.3g} to {known.max():.3g}, median {np.median(known):.3g}"
            )
        if left_out:
            parts.append(f"{left_out} left out by the screen")
        if len(known) + left_out < self.num_samples:
            parts.append(f"{self.num_samples - len(known) - left_out} without ldr")
        parts += [f"with {name}" for name in _OPTIONAL if getattr(self, name) is not None]
        return f"PoolScores({', '.join(parts)})"

    @property
    def num_samples(self) -> int:
        """N."""
        return len(self.index)

    @property
    def left_out(self) -> np.ndarray:
        """bool [N], the samples that the screen left out: their ldr is -inf."""
        return np.isneginf(self.ldr)

    @property
    def num_classes(self) -> int:
        """C; 0 for an empty pool."""
        return len(self.posterior_mean)

    def to_pandas(self) -> pd.DataFrame:
        """The arrays of N entries as the columns of a pandas.DataFrame, copied; its row i is the
        i-th sample. (``posterior_mean`` has an entry a class, and is left out.)

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(f"to_pandas needs pandas: pip install pandas ({error})") from error
        arrays = {name: getattr(self, name) for name in (*DTYPES, *_OPTIONAL)}
        del arrays["posterior_mean"]
        return pd.DataFrame({k: array.copy() for k, array in arrays.items() if array is not None})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the arrays to `path` (an .npz without pickles), whole or not at all."""
        arrays = {name: getattr(self, name) for name in (*DTYPES, *_OPTIONAL)}
        with write_atomically(path) as file:
            np.savez(file, **{name: array for name, array in arrays.items() if array is not None})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PoolScores:
        """Reads what `save` wrote. Nothing in the file is ever unpickled.

        Raises:
            ValueError: the file is no .npz, is truncated or damaged, holds pickled objects, lacks
                an array, or its arrays do not fit together.
            OSError: it cannot be opened.
        """
        try:
            arrays = load_npz(path)
            missing = [name for name in DTYPES if name not in arrays]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            names = (*DTYPES, *_OPTIONAL)
            scores = cls(**{name: arrays[name] for name in names if name in arrays})
            if len(scores.index) and scores.index.min() < 0:
                raise ValueError(f"index must not be negative, got {scores.index.min()}")
            return scores
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is no readable file of pool scores: {error}") from None


def score_text(value: float) -> str:
    """A score as tables have it: "" for NaN."""
    return "" if np.isnan(value) else f"{value:.9g}"  # nine digits tell any two float32 apart


def _is_of(dtype: np.dtype[Any], wanted: Any) -> bool:
    """Whether an array's dtype is the one wanted; texts are of any length."""
    return dtype.kind == "U" if wanted is np.str_ else dtype == wanted


def joined(parts: Iterable[PoolScores], size: int) -> PoolScores:
    """The scores of a pool of `size` samples from those of its parts, in their order.

    The parts are asked for one after the other: in memory are the result and one of them (and the
    names once more, while a part with longer ones makes room for them in the result). Names that
    some of the parts have (shards of an older version have none) are "" in the others.

    Raises:
        ValueError: the parts have other numbers of samples together, of classes, or other columns.
    """
    columns: dict[str, np.ndarray] = {}
    posterior, finite, start = np.zeros(0), 0, 0
    for part in parts:
        if part.num_samples == 0:
            continue
        arrays = {name: getattr(part, name) for name in (*DTYPES, *_OPTIONAL)}
        mean = arrays.pop("posterior_mean")
        arrays = {name: array for name, array in arrays.items() if array is not None}
        if "name" in columns or (start and "name" in arrays):
            given = arrays.setdefault("name", np.zeros(part.num_samples, "U1"))
            have = columns.setdefault("name", np.zeros(size, "U1"))
            if given.dtype.itemsize > have.dtype.itemsize:  # or the longer names would be cut off
                columns["name"] = have.astype(given.dtype)
        if start == 0:
            columns = {name: np.empty(size, array.dtype) for name, array in arrays.items()}
        if len(posterior) == 0:  # so far, and also of a part of which no sample was there
            posterior = np.zeros_like(mean)
        stop = start + part.num_samples
        alike = len(mean) in (0, len(posterior))
        if stop > size or columns.keys() != arrays.keys() or not alike:
            raise ValueError(
                f"samples {start} to {stop} of {size} do not fit the ones before: "
                f"{', '.join(arrays)} of {len(mean)} classes where there are "
                f"{', '.join(columns)} of {len(posterior)}"
            )
        for name, array in arrays.items():
            columns[name][start:stop] = array
        known = int((part.pseudo_label >= 0).sum())
        if known:
            posterior += mean * known
        finite, start = finite + known, stop
    if start != size:
        raise ValueError(f"the parts hold {start} samples of {size}")
    if size == 0:
        columns = {name: np.empty(0, dtype) for name, dtype in DTYPES.items()}
        del columns["posterior_mean"]
    elif finite:
        posterior /= finite
    else:
        posterior = np.full_like(posterior, np.nan)
    return PoolScores(**columns, posterior_mean=posterior)
