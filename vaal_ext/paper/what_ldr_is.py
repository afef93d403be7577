"""What LDR measures: beside entropy and margin, and where the pseudo labels are wrong."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from vaal_ext.experiment.datasets.arrays import read_npz
from vaal_ext.files.atomic import write_atomically
from vaal_ext.report.canvas import new_figure, set_title, write_figure
from vaal_ext.report.runs import Run
from vaal_ext.selection import percentile_rank

__all__ = [
    "BANDS",
    "ScoredPool",
    "draw_roughness",
    "load_pools",
    "save_pools",
    "scored_pool",
    "wrong_per_band",
]

# Percentile bands, closed above as the paper's threshold is open below: rank > PRT.
BANDS = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)

_RIGHT, _WRONG = "#7A9CBF", "#D55E00"
_FLOOR = 1e-12  # LDR spans many orders of magnitude; what is below is drawn there


@dataclass(frozen=True)
class ScoredPool:
    """The pool that a run's last query chose from, N samples with finite scores.

    Attributes:
        ldr, entropy, margin: float32 [N].
        wrong: bool [N], where the pseudo label is not the label.
    """

    ldr: np.ndarray
    entropy: np.ndarray
    margin: np.ndarray
    wrong: np.ndarray


def scored_pool(run: Run) -> ScoredPool:
    """ValueError where the run's strategy computes no LDR, or that of a part of the pool alone, or
    nothing was queried yet."""
    scores = run.scores()
    if scores is None:
        raise ValueError(f"{run.folder} has no LDR: its strategy computes none")
    if scores.left_out.any():
        raise ValueError(
            f"{run.folder} has LDR for the candidates of its last query alone: the screen left out "
            f"{scores.left_out.sum()} of {scores.num_samples} samples"
        )
    label = run.load_data().train_y.numpy()
    kept = np.isfinite(scores.ldr)
    wrong = scores.pseudo_label != label[scores.index]
    return ScoredPool(scores.ldr[kept], scores.entropy[kept], scores.margin[kept], wrong[kept])


def wrong_per_band(values: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The share of wrong pseudo labels in each of ``BANDS``, float64; NaN for an empty band.

    `values` is float [N], ranked as the paper does (section III.B), `wrong` bool [N].
    """
    rank = percentile_rank(values)
    inside = [(rank > low) & (rank <= high) for low, high in itertools.pairwise(BANDS)]
    return np.array([wrong[band].mean() if band.any() else np.nan for band in inside])


def save_pools(path: Path, pools: Mapping[str, ScoredPool]) -> None:
    """What :func:`draw_roughness` takes, as an npz file."""
    arrays = {
        f"{field.name}_{i}": getattr(pool, field.name)
        for i, pool in enumerate(pools.values())
        for field in fields(ScoredPool)
    }
    with write_atomically(path, "wb") as file:
        np.savez_compressed(file, variants=list(pools), **arrays)


def load_pools(path: Path) -> dict[str, ScoredPool]:
    """What :func:`save_pools` wrote.

    ValueError where the file is damaged. OSError where it cannot be read.
    """
    held = read_npz(path)
    return {
        str(variant): ScoredPool(*(held[f"{field.name}_{i}"] for field in fields(ScoredPool)))
        for i, variant in enumerate(held["variants"])
    }


def draw_roughness(path: Path, pools: Mapping[str, ScoredPool], title: str) -> None:
    """A row for each variant, to the PNG file `path`: LDR against entropy, LDR against margin, and
    the share of wrong pseudo labels by percentile of LDR, entropy and (downward) margin."""
    figure = new_figure(12.0, 3.5 * len(pools) + 0.8)
    set_title(figure, title)
    grid = figure.subplots(len(pools), 3, squeeze=False)
    for line, (variant, pool) in zip(grid, pools.items(), strict=True):
        ldr = np.maximum(pool.ldr.astype(np.float64), _FLOOR)
        for axes, values, name in (
            (line[0], pool.entropy, "entropy [nats]"),
            (line[1], pool.margin, "margin"),
        ):
            for mask, colour, what in (
                (~pool.wrong, _RIGHT, "pseudo label right"),
                (pool.wrong, _WRONG, "pseudo label wrong"),
            ):
                axes.scatter(
                    values[mask], ldr[mask], s=4, c=colour, label=what, rasterized=True, linewidth=0
                )
            axes.set_yscale("log")
            axes.set_xlabel(name)
        line[0].set_ylabel(f"{variant}\nLDR [nats]")
        middle = (np.array(BANDS[:-1]) + np.array(BANDS[1:])) / 2
        for values, colour, marker, name in (
            (pool.ldr, "#0072B2", "o", "by LDR"),
            (pool.entropy, "#009E73", "D", "by entropy"),
            (-pool.margin, "#CC79A7", "^", "by 1 - margin"),
        ):
            share = 100 * wrong_per_band(values, pool.wrong)
            line[2].plot(middle, share, color=colour, marker=marker, markersize=3.5, label=name)
        line[2].set_xlabel("percentile rank in the pool")
        line[2].set_ylabel("wrong pseudo labels [%]")
    handles = [
        handle
        for axes in (grid[0, 0], grid[0, 2])
        for handle in axes.get_legend_handles_labels()[0]
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=5, frameon=False, markerscale=2
    )
    write_figure(figure, path)
