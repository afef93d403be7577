"""What `vaal-ext select` does once its options are read."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from vaal_ext.files.atomic import require_writable, write_atomically
from vaal_ext.pool.scores import PoolScores
from vaal_ext.pool.shards import read_shards
from vaal_ext.selection import Order, percentile_rank, select

__all__ = ["write_query"]


def write_query(
    scores: Path,
    n: int,
    out: Path,
    *,
    percentile: float,
    class_prior: str | list[float] | None,
    order: Order,
    seed: int,
) -> str:
    """Choose n samples from scores, a file or a folder, and write them as CSV; a line of which.

    The columns are index (in the data set), pseudo_label, ldr [nats], percentile_rank [%], entropy
    [nats], and name where the scores have names; the rows stand in the order picked. It is UTF-8,
    but a file name that is not has its own bytes there, by which the file is found.

    Raises:
        TypeError, ValueError: see :func:`vaal_ext.select`; scores that cannot be read. OSError.
    """
    require_writable(out)
    pool = read_shards(scores) if scores.is_dir() else PoolScores.load(scores)
    picked = select(
        pool.ldr,
        pool.pseudo_label,
        n,
        percentile=percentile,
        class_prior=class_prior,
        order=order,
        num_classes=pool.num_classes,
        posterior_mean=pool.posterior_mean,
        seed=seed,
    )
    ranks = percentile_rank(pool.ldr, picked)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    named = pool.name is not None
    header = ("index", "pseudo_label", "ldr", "percentile_rank", "entropy")
    writer.writerow((*header, "name") if named else header)
    for i, percent in zip(picked.tolist(), ranks, strict=True):
        numbers = (pool.ldr[i], percent, pool.entropy[i])
        row = (pool.index[i], pool.pseudo_label[i], *(f"{number:.9g}" for number in numbers))
        writer.writerow((*row, pool.name[i]) if pool.name is not None else row)
    with write_atomically(out) as file:
        file.write(_encoded(table.getvalue()))
    counts = np.bincount(pool.pseudo_label[picked], minlength=pool.num_classes)
    return (
        f"{out}: {n} of {pool.num_samples} samples, LDR {pool.ldr[picked].min():.3g} to "
        f"{pool.ldr[picked].max():.3g}, {counts.min()} to {counts.max()} of each of "
        f"{pool.num_classes} pseudo labels"
    )


def _encoded(text: str) -> bytes:
    """UTF-8, but what os.fsdecode made of other bytes becomes those bytes again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # lone surrogates of another kind, which no file name gives
        return text.encode("utf-8", "surrogatepass")
