"""The pictures of a report beside the curves: win matrix, LDR histogram, contact sheets.

Every function takes plain arrays and the path of the PNG it writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaal_ext.experiment.status import counted
from vaal_ext.report.canvas import new_figure, set_caption, set_title, write_figure
from vaal_ext.report.histogram import LEAST, ldr_bins

__all__ = [
    "LDR_COLOURS",
    "Thumbnail",
    "draw_contact_sheet",
    "draw_ldr_histogram",
    "draw_win_matrix",
    "win_matrix_title",
]

_GREY = "#707070"
# Samples below the threshold, candidates left, and queried.
LDR_COLOURS = ("#B8C7D6", "#56B4E9", "#D55E00")


@dataclass(frozen=True)
class Thumbnail:
    """An image: pixels float [H, W] or [H, W, 3] in 0..1, its caption, and whether to mark it."""

    pixels: np.ndarray
    caption: str
    marked: bool


def win_matrix_title(dataset: str, seeds: int, labels: Sequence[int]) -> str:
    """Of :func:`draw_win_matrix`, with the seeds and the numbers of labels that were compared."""
    made_of = f"{counted(seeds, 'seed')}, {min(labels):,} to {max(labels):,} labels"
    return f"{dataset}: which strategy is more accurate\n{made_of}"


def draw_win_matrix(path: Path, names: Sequence[str], wins: np.ndarray, title: str) -> None:
    """How often each strategy beats each other one, to the PNG file `path`.

    `wins` is float[K, K], the share (0..1) of seeds and rounds in which the row has the higher
    accuracy, in the order of the K `names`; the diagonal is left blank.
    """
    cells, room = 0.7 * len(names), 0.08 * max(map(len, names))  # inches, also of the longest name
    figure = new_figure(cells + room + 2.6, cells + 0.6 * room + 1.8)  # which is turned below
    axes = figure.subplots()
    shown = np.ma.masked_array(100 * wins, mask=np.eye(len(names), dtype=bool))
    image = axes.imshow(shown, cmap="Blues", vmin=0.0, vmax=100.0)
    for row, column in itertools.product(range(len(names)), repeat=2):
        if row != column:
            share = 100 * wins[row, column]
            colour = "white" if share > 60 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("… this one")
    axes.set_ylabel("how often this one beats …")
    set_title(figure, title)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="seeds and rounds [%]")
    write_figure(figure, path)


def draw_ldr_histogram(
    path: Path, ldr: np.ndarray, queried: np.ndarray, percentile: float, title: str
) -> None:
    """Histogram of the LDR of a pool, with the threshold, to the PNG file `path`.

    `ldr` is float[N] (no NaN, at least one finite), `queried` bool[N], `percentile` the PRT of
    the paper's Algorithm 1; the threshold is the smallest LDR of a candidate. Of samples at -inf,
    which the screen left out, there is the number alone. LDR spans many orders of magnitude, so
    its axis is logarithmic; samples below 1e-12 (zero included) stand in the leftmost bin.
    """
    bins = ldr_bins(ldr, queried, percentile)
    figure = new_figure(7.2, 4.2)
    axes = figure.subplots()
    below = "below the threshold"
    if bins.left_out:
        below += f", besides {bins.left_out:,} left out by the screen"
    labels = (below, "candidates left", "queried")
    axes.hist(
        bins.groups,
        bins=bins.edges.tolist(),
        stacked=True,
        color=LDR_COLOURS,
        label=[f"{label} ({len(x):,})" for label, x in zip(labels, bins.groups, strict=True)],
    )
    axes.axvline(
        max(bins.threshold, LEAST),
        color="black",
        linestyle="--",
        linewidth=1.2,
        label=f"percentile {percentile:g}: LDR {bins.threshold:.3g}",
    )
    axes.set_xscale("log")
    axes.set_xlabel("Local Distributional Roughness [nats]")
    axes.set_ylabel("samples of the pool per bin")
    set_title(figure, title)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)  # over no bar
    write_figure(figure, path)


def draw_contact_sheet(
    path: Path, rows: Sequence[tuple[str, Sequence[Thumbnail]]], title: str, note: str
) -> None:
    """A grid of images of one size to the PNG file `path`: one row for each `(name, images)`.

    Captions stand above the images; a marked image has its caption in red. `note` explains the
    captions, at the foot.
    """
    columns = max(len(images) for _, images in rows)
    side = 0.58  # of an image, in inches
    gutter = 1.3 if any(name for name, _ in rows) else 0.0  # for the names, in images
    width = 1.08 * columns - 0.08
    figure = new_figure(max(side * (width + gutter) + 0.3, 5.0), side * 1.4 * len(rows) + 0.6)
    set_title(figure, title)
    set_caption(figure, note)
    axes = figure.subplots()
    axes.set_axis_off()
    # Every image fills the unit square of its cell, which is 1.08 wide and 1.4 high: an axes for
    # each of up to 200 images would take seconds to lay out.
    for line, (name, images) in enumerate(rows):
        top = 1.4 * line
        axes.text(-0.2, top + 0.5, name, ha="right", va="center", fontsize=8)
        for column, image in enumerate(images):
            left = 1.08 * column
            axes.imshow(
                image.pixels,
                cmap="gray" if image.pixels.ndim == 2 else None,
                vmin=0.0,
                vmax=1.0,
                extent=(left, left + 1, top + 1, top),
                interpolation="nearest",
            )
            colour = "#C00000" if image.marked else _GREY
            axes.text(left + 0.5, top - 0.06, image.caption, ha="center", fontsize=7, color=colour)
    axes.set_xlim(-gutter, width)
    axes.set_ylim(1.4 * len(rows) - 0.3, -0.4)
    write_figure(figure, path)
