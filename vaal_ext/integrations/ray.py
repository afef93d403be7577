"""Ray Data: LDR of a data set of any size, scored by actors, and the query from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import ray.data
import torch
from ray.data.aggregate import Count, Max, Quantile
from torch import nn

from vaal_ext.checks import require_int
from vaal_ext.scorer import LDRScorer
from vaal_ext.selection import candidate_count, select

__all__ = ["LDRBatches", "select_rows"]

COLUMNS = ("ldr", "pseudo_label", "entropy", "margin")


class LDRBatches:
    """Adds ``ldr``, ``pseudo_label``, ``entropy`` and ``margin`` to batches, and takes x away::

        dataset.map_batches(
            LDRBatches, batch_size=256, concurrency=4, num_gpus=1,
            fn_constructor_kwargs={"model": load, "eps": 0.1},
        )

    Every actor makes the network once; the rest is Ray's.

    Args:
        model: called without arguments, gives the network (an nn.Module), with its weights.
        x: the column of the samples, arrays of one shape, floating, or uint8 with `normalize`.
        sample_index: the column of the samples' identities, whole numbers, all different: they key
            the start directions, so that neither blocks nor actors matter for the scores.
        scorer: what else :class:`vaal_ext.LDRScorer` takes, by name. Where Ray gives the actor a
            GPU, the network goes there.

    Raises:
        TypeError, ValueError: a setting that does not exist, of a wrong type or out of its range.
    """

    def __init__(
        self,
        model: Callable[[], nn.Module],
        *,
        x: str = "x",
        sample_index: str = "sample_index",
        **scorer: Any,
    ) -> None:
        self._x, self._sample_index = x, sample_index
        device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
        # A graph would be captured anew for every batch.
        self._scorer = LDRScorer(model().to(device), **({"cuda_graph": False} | scorer))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch with the four columns of float32 [B] (pseudo_label: int64), without x.

        Raises:
            TypeError, ValueError: the columns are not there, or see :meth:`LDRScorer.score`.
        """
        for name in (self._x, self._sample_index):
            if name not in batch:
                raise ValueError(f"the data set has no column {name!r}, it has {sorted(batch)}")
        rest = {name: column for name, column in batch.items() if name != self._x}
        index = torch.from_numpy(np.array(batch[self._sample_index]))
        scores = self._scorer.score(np.asarray(batch[self._x]), sample_index=index, progress=False)
        return rest | {name: getattr(scores, name) for name in COLUMNS}


def select_rows(
    scored: ray.data.Dataset,
    n: int,
    *,
    sample_index: str = "sample_index",
    percentile: float = 90.0,
    class_prior: Any = "uniform",
    order: str = "ascending",
    num_classes: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """What :func:`vaal_ext.select` picks from all rows, with the threshold found by Ray.

    Only rows that can be picked come to this process: those above the percentile of the whole data
    set, or the roughest n where these are more. Ray's Quantile brings the column of the scores
    together in one worker.

    Args:
        scored: rows with `sample_index`, "ldr" and "pseudo_label", as from `LDRBatches`. It is run
            three times: materialize() it before, or write it to Parquet.
        n, percentile, class_prior, order, num_classes, seed: see :func:`vaal_ext.select`; but
            class_prior="predicted" is refused, its mean posterior is not among the columns.

    Returns:
        int64 [n], values of the column `sample_index`, in the order they were picked; ties go to
        the smaller.

    Raises:
        TypeError, ValueError: see :func:`vaal_ext.select`; a sample_index that comes twice.
    """
    chosen = {"class_prior": class_prior, "order": order, "seed": seed}
    select(np.ones(1), [0], 1, percentile=percentile, num_classes=num_classes, **chosen)
    require_int("n", n, 1)
    rows = scored.map_batches(partial(_at_least, threshold=-np.inf))
    known = rows.aggregate(Count(alias_name="size"), Max("pseudo_label", alias_name="label"))
    size = known["size"]
    if n > size:
        raise ValueError(f"n must be at most the {size} samples with a score, got {n}")
    if num_classes is None and (class_prior is None or isinstance(class_prior, str)):
        num_classes = int(known["label"]) + 1

    place = candidate_count(percentile, size)
    # Ray interpolates. Half a place lower is above the score before, if that is a smaller one, and
    # not above this one, which float32 keeps true where rounding would spoil it.
    lowest = min(place, size - n + 1)
    q = max(0.0, lowest - 1.5) / max(1, size - 1)
    threshold = rows.aggregate(Quantile("ldr", q=q, alias_name="ldr"))["ldr"]
    kept = rows.map_batches(partial(_at_least, threshold=float(np.float32(threshold))))
    columns = (sample_index, "ldr", "pseudo_label")
    batches = [
        [batch[name] for name in columns]
        for batch in kept.select_columns(list(columns)).iter_batches(batch_size=None)
    ]
    index, ldr, label = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    by_index = np.argsort(index, kind="stable")
    index, ldr, label = index[by_index], ldr[by_index], label[by_index]
    if (np.diff(index) == 0).any():
        raise ValueError(f"column {sample_index!r} must tell the samples apart, it has repetitions")
    # The same candidates, counted among the rows that are here: the others lie below them all.
    among = 100.0 * (place - (size - len(index)) - 0.5) / len(index)
    picked = select(ldr, label, n, percentile=among, num_classes=num_classes, **chosen)
    chosen_index: np.ndarray = index[picked].astype(np.int64)
    return chosen_index


def _at_least(batch: dict[str, np.ndarray], threshold: float) -> dict[str, np.ndarray]:
    """Rows with a score (no NaN) that is at or above the threshold."""
    kept = batch["ldr"] >= threshold
    return {name: column[kept] for name, column in batch.items()}
