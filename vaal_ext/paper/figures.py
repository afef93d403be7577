"""The paper's pictures that a report does not have: contours, error against updates, losses.

Every function takes plain arrays and the path of the PNG it writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaal_ext.experiment.datasets.arrays import read_npz
from vaal_ext.experiment.status import counted
from vaal_ext.files.atomic import write_atomically
from vaal_ext.report.canvas import new_figure, set_caption, set_title, styles, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Panel",
    "draw_contours",
    "draw_losses",
    "draw_updates",
    "load_panels",
    "save_panels",
]

_RED, _BLUE, _GREEN = "#D55E00", "#0072B2", "#009E73"
# Points on the tints of the contours: dark, so that class 0 is seen on blue and class 1 on red.
CLASS_COLOURS = {1: "#7A1020", 0: "#08306B"}
TINT = 0.45  # how much of the colour map's colours the tints have
_QUERIED = "#FFD92F"
_MASKS = ("labelled", "queried")  # what a file of panels holds as masks


@dataclass(frozen=True)
class Panel:
    """One network over the plane.

    Attributes:
        title: above the panel.
        probability: float [G, G], p(y = 1 | x) at the points of `axes`, row by row of x_2.
        axes: float [2, G], the values of x_1 and of x_2.
        x, y: float [N, 2] and int [N], the points of the pool and their labels.
        labelled, queried: int [L] and [n], positions in x.
    """

    title: str
    probability: np.ndarray
    axes: np.ndarray
    x: np.ndarray
    y: np.ndarray
    labelled: np.ndarray
    queried: np.ndarray


def save_panels(path: Path, rows: Sequence[Sequence[Panel]]) -> None:
    """What :func:`draw_contours` takes, as an npz file; the panels have as many points each."""
    panels = [panel for row in rows for panel in row]
    arrays: dict[str, Any] = {
        name: np.array([getattr(panel, name) for panel in panels])
        for name in ("title", "axes", "x", "y")
    }
    arrays["probability"] = np.array([panel.probability for panel in panels], dtype=np.float16)
    for name in _MASKS:  # which are all of one length
        arrays[name] = np.array([np.isin(np.arange(len(p.x)), getattr(p, name)) for p in panels])
    with write_atomically(path, "wb") as file:
        np.savez_compressed(file, rows=len(rows), **arrays)


def load_panels(path: Path) -> list[list[Panel]]:
    """What :func:`save_panels` wrote; probabilities in half precision.

    ValueError where the file is damaged. OSError where it cannot be read.
    """
    held = read_npz(path)
    panels = [
        Panel(
            str(held["title"][i]),
            *(held[name][i] for name in ("probability", "axes", "x", "y")),
            *(np.flatnonzero(held[name][i]) for name in _MASKS),
        )
        for i in range(len(held["title"]))
    ]
    columns = len(panels) // int(held["rows"])
    return [panels[i : i + columns] for i in range(0, len(panels), columns)]


def draw_contours(path: Path, rows: Sequence[Sequence[Panel]], title: str) -> None:
    """Contours of p(y = 1 | x), black where it is 0.5, to the PNG file `path` (Fig. 3 and 4).

    Dark red circles and dark blue triangles are the pool (labels 1 and 0), the larger ones are
    labelled, the yellow ones are queried. One row of panels for each strategy.
    """
    columns = max(len(row) for row in rows)
    span = np.ptp(rows[0][0].axes, axis=1)
    width = 3.9
    height = width * float(span[1] / span[0])  # as the plane is, so that nothing is left white
    figure = new_figure(width * columns + 2.2, (height + 0.4) * len(rows) + 1.3)
    set_title(figure, title)
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    for line, panels in zip(grid, rows, strict=True):
        for axes, panel in zip(line, panels, strict=True):
            filled = axes.contourf(
                *panel.axes, panel.probability, levels=np.linspace(0, 1, 11), cmap="RdBu_r",
                alpha=TINT,
            )  # fmt: skip
            axes.contour(*panel.axes, panel.probability, levels=[0.5], colors="black")
            _scatter(axes, panel)
            axes.set_title(panel.title, fontsize=10)
            axes.set_aspect("equal")
            axes.label_outer()
    for axes in grid[:, 0]:
        axes.set_ylabel("x₂")
    for axes in grid[-1]:
        axes.set_xlabel("x₁")
    figure.colorbar(filled, ax=grid, shrink=0.8, label="p(y = 1 | x)")
    handles, _ = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    write_figure(figure, path)


def _scatter(axes: Axes, panel: Panel) -> None:
    labelled, queried = np.zeros((2, len(panel.x)), dtype=bool)
    labelled[panel.labelled] = True
    queried[panel.queried] = True
    for mask, size, face, edge, what in (
        (~labelled & ~queried, 6, None, "none", "pool"),
        (labelled & ~queried, 46, None, "white", "labelled"),
        (queried, 46, _QUERIED, "black", "queried"),
    ):
        for label, marker in ((1, "o"), (0, "^")):
            x_1, x_2 = panel.x[mask & (panel.y == label)].T
            axes.scatter(
                x_1, x_2, s=size, c=face or CLASS_COLOURS[label], marker=marker, edgecolors=edge,
                linewidths=0.9, label=f"{what}, label {label}",
            )  # fmt: skip


def draw_updates(path: Path, errors: Mapping[str, Mapping[str, np.ndarray]], title: str) -> None:
    """Test error against updates, a panel for each data set, to the PNG file `path` (Fig. 5).

    `errors` is data set -> strategy -> float [S, T], 0..1, after each of T updates, S seeds. The
    band is the 95% confidence interval of the mean (normal approximation).
    """
    figure = new_figure(4.8 * len(errors), 4.3)
    set_title(figure, title)
    panels = figure.subplots(1, len(errors), squeeze=False, sharey=True)[0]
    names = list(dict.fromkeys(name for strategies in errors.values() for name in strategies))
    looks = dict(zip(names, styles(names), strict=True))
    lines = {}
    for axes, (dataset, strategies) in zip(panels, errors.items(), strict=True):
        for name, values in strategies.items():
            style = looks[name]
            updates = np.arange(1, values.shape[1] + 1)
            mean = 100 * values.mean(axis=0)
            (lines[name],) = axes.plot(
                updates, mean, color=style.colour, linestyle=style.line, marker=style.marker,
                markerfacecolor=style.fill, markevery=0.1, markersize=4.5, label=name,
            )  # fmt: skip
            if len(values) > 1:
                half = 196 * values.std(axis=0, ddof=1) / len(values) ** 0.5
                axes.fill_between(
                    updates, mean - half, mean + half, color=style.colour, alpha=0.15, linewidth=0
                )
        seeds = len(next(iter(strategies.values())))
        axes.set_title(f"{dataset} ({counted(seeds, 'seed')})", fontsize=10)
        axes.set_xlabel("updates")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("test error [%]")
    panels[0].set_ylim(bottom=0.0)
    figure.legend(handles=list(lines.values()), loc="outside right center", frameon=False)
    set_caption(figure, "Mean over seeds; band: its 95% interval (normal approximation).")
    write_figure(figure, path)


def draw_losses(
    path: Path, panels: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, title: str
) -> None:
    """Losses and accuracy against labels, a panel for each variant, to the PNG `path` (Fig. 9).

    `panels` is variant -> {"test loss", "training loss", "test accuracy"} -> float [L], means over
    seeds, at `labels` int [L]; losses in nats on the left axis, accuracy (0..1) on the right.
    """
    figure = new_figure(5.0 * len(panels), 4.2)
    set_title(figure, title)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    highest = max(curves[name].max() for curves in panels.values() for name in curves)
    least = 100 * min(curves["test accuracy"].min() for curves in panels.values())
    rights = []
    for axes, (variant, curves) in zip(grid, panels.items(), strict=True):
        right = axes.twinx()
        lines = [
            axes.plot(labels, curves["test loss"], color=_RED, marker="o", label="test loss"),
            axes.plot(
                labels, curves["training loss"], color=_BLUE, marker="s", label="training loss"
            ),
            right.plot(
                labels, 100 * curves["test accuracy"], color=_GREEN, marker="^",
                label="test accuracy",
            ),
        ]  # fmt: skip
        axes.set_ylim(0, 1.05 * highest)
        right.set_ylim(min(70.0, least - 3), 100)  # the paper's axis, or as far as it needs
        axes.set_title(variant, fontsize=10)
        axes.set_xlabel("labelled samples")
        rights.append(right)
    grid[0].set_ylabel("loss [nats]")  # all panels have one scale
    rights[-1].set_ylabel("test accuracy [%]")
    handles = [line for (line,) in lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    write_figure(figure, path)
