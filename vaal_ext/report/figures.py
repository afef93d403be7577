"""The pictures of a report: learning curves, win matrix, LDR histogram, contact sheets.

Every function takes plain arrays and the path of the PNG it writes. matplotlib is imported when a
picture is drawn, not before, and always with the Agg canvas: no display is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vaal_ext.atomic import write_atomically
from vaal_ext.report.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vaal_ext.report.curves import Curve

__all__ = [
    "Style",
    "Thumbnail",
    "draw_contact_sheet",
    "draw_ldr_histogram",
    "draw_learning_curves",
    "draw_win_matrix",
    "new_figure",
    "styles",
    "write_figure",
]

# Okabe and Ito's palette: told apart also by readers with a colour vision deficiency. A strategy
# of ours has the same colour in every report; the others take what is left.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_OWN_COLOUR = {"vaal": 0, "random": 1, "entropy": 2, "margin": 3, "dfal": 4}
_MARKERS = "osD^vPX"
_GREY = "#707070"


class Style(NamedTuple):
    """How matplotlib draws a curve."""

    colour: str
    marker: str
    line: str


@dataclass(frozen=True)
class Thumbnail:
    """An image: pixels float [H, W] or [H, W, 3] in 0..1, its caption, and whether to mark it."""

    pixels: np.ndarray
    caption: str
    marked: bool


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: Figure, path: Path) -> None:
    """A figure as a PNG file, whole or not at all."""
    with write_atomically(path, "wb") as handle:
        figure.savefig(handle, format="png")


def styles(names: Sequence[str]) -> list[Style]:
    """A style for each name, all distinct for up to fourteen names.

    A strategy that trains with the regulariser has the colour of the one without, dashed.
    """
    base = [name.removesuffix("+vat") for name in names]
    numbers = {}
    for name, plain in zip(names, base, strict=True):
        if plain in _OWN_COLOUR:
            numbers[name] = _OWN_COLOUR[plain] + len(_COLOURS) * (name != plain)
    rest = (n for n in itertools.count() if n not in numbers.values())
    chosen = [numbers[name] if name in numbers else next(rest) for name in names]
    return [
        Style(_COLOURS[n % len(_COLOURS)], _MARKERS[n % len(_MARKERS)], "--" if n >= 7 else "-")
        for n in chosen
    ]


# With more the legend would hide some, and goes outside, and bands would hide each other.
_CURVES_BESIDE_A_LEGEND = 5


def draw_learning_curves(
    path: Path, curves: Sequence[Curve], dataset: str, *, made_of: str = ""
) -> None:
    """Test accuracy against the number of labels, one line per curve, to the PNG file `path`.

    The band is the 95% confidence interval of the mean over seeds, of curves with three or more (of
    two it is wider than all that was measured), where the curves are so few that their bands do
    not hide each other. The vertical axis follows the measured accuracies, not the bands, which
    it may cut off. `made_of` goes below the title: of what runs the curves are.
    """
    from matplotlib.ticker import MaxNLocator

    crowded = len(curves) > _CURVES_BESIDE_A_LEGEND
    numbers = {int(curve.runs.max()) for curve in curves}
    banded = {n for n in numbers if n >= 3 and not crowded}
    figure = new_figure(9.6 if crowded else 7.2, 4.6)
    axes = figure.subplots()
    for curve, style in zip(curves, styles([curve.name for curve in curves]), strict=True):
        colour, runs = style.colour, int(curve.runs.max())
        if runs in banded:
            low, high = 100 * curve.low, 100 * curve.high
            axes.fill_between(curve.labels, low, high, color=colour, alpha=0.12, linewidth=0)
            for edge in (low, high):
                axes.plot(curve.labels, edge, color=colour, linewidth=0.6, alpha=0.5)
        axes.plot(
            curve.labels,
            100 * curve.mean,
            color=colour,
            marker=style.marker,
            linestyle=style.line,
            markersize=4.5,
            linewidth=2.0,
            label=f"{curve.name} ({counted(runs, 'seed')})",
        )
    every = np.concatenate([100 * curve.accuracies for curve in curves])
    margin = max(1.0, 0.06 * float(np.ptp(every)))
    axes.set_ylim(max(0.0, every.min() - margin), min(100.5, every.max() + margin))
    labels = np.unique(np.concatenate([curve.labels for curve in curves]))
    if len(labels) <= 12:
        axes.set_xticks(labels)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("labelled samples")
    axes.set_ylabel("test accuracy [%]")
    over = ": mean over seeds" if max(numbers) > 1 else ""
    band = ", 95% band" if banded else ""
    below = f"\n{made_of}" if made_of else ""
    axes.set_title(f"Active learning on {dataset}{over}{band}{below}", fontsize=10)
    if crowded:
        figure.legend(loc="outside right center", frameon=False)
    else:
        axes.legend(loc="lower right", framealpha=0.9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path)


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
    axes.set_title(title, fontsize=10)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="seeds and rounds [%]")
    write_figure(figure, path)


def draw_ldr_histogram(
    path: Path, ldr: np.ndarray, queried: np.ndarray, percentile: float, title: str
) -> None:
    """Histogram of the LDR of a pool, with the threshold, to the PNG file `path`.

    `ldr` is float[N] (finite, at least one sample), `queried` bool[N], `percentile` the PRT of
    the paper's Algorithm 1; the threshold is the smallest LDR of a candidate. LDR spans many
    orders of magnitude, so its axis is logarithmic; samples below 1e-12 (zero included) stand in
    the leftmost bin.
    """
    from vaal_ext.selection import percentile_rank

    candidate = percentile_rank(ldr) > percentile
    threshold = float(ldr[candidate].min()) if candidate.any() else float(ldr.max())
    shown, edge = np.maximum(ldr.astype(np.float64), 1e-12), max(threshold, 1e-12)
    # The bins start from the threshold both ways, so that none holds samples of both sides.
    bins = np.clip(3 * len(shown) ** (1 / 3), 20, 80)
    width = max(np.log(shown.max() / shown.min()) / bins, 0.01)
    first, last = np.log(np.array([shown.min(), shown.max()]) / edge) / width
    edges = edge * np.exp(width * np.arange(np.floor(first - 1e-9), np.floor(last) + 2))
    figure = new_figure(7.2, 4.2)
    axes = figure.subplots()
    parts = (
        (~candidate & ~queried, "#B8C7D6", "below the threshold"),
        (candidate & ~queried, "#56B4E9", "candidates left"),
        (queried, "#D55E00", "queried"),
    )
    axes.hist(
        [shown[mask] for mask, _, _ in parts],
        bins=edges,
        stacked=True,
        color=[colour for _, colour, _ in parts],
        label=[f"{label} ({np.count_nonzero(mask):,})" for mask, _, label in parts],
    )
    axes.axvline(
        edge,
        color="black",
        linestyle="--",
        linewidth=1.2,
        label=f"percentile {percentile:g}: LDR {threshold:.3g}",
    )
    axes.set_xscale("log")
    axes.set_xlabel("Local Distributional Roughness [nats]")
    axes.set_ylabel("samples of the pool per bin")
    axes.set_title(title)
    axes.legend(loc="best", framealpha=0.9)
    axes.spines[["top", "right"]].set_visible(False)
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
    figure = new_figure(max(side * (1.08 * columns + 1.6), 5.0), side * 1.4 * len(rows) + 0.6)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(note, fontsize=8, color="#404040")
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
    axes.set_xlim(-1.6, 1.08 * columns)
    axes.set_ylim(1.4 * len(rows) - 0.3, -0.4)
    write_figure(figure, path)
