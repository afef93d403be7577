"""The paper's pictures that a report does not have: contours, error against updates, losses.

Every function takes plain arrays and the path of the PNG it writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaal_ext.report.figures import new_figure, styles, write_figure
from vaal_ext.report.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panel", "draw_contours", "draw_losses", "draw_updates"]

_RED, _BLUE, _GREEN = "#D55E00", "#0072B2", "#009E73"


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


def draw_contours(path: Path, rows: Sequence[Sequence[Panel]], title: str) -> None:
    """Contours of p(y = 1 | x), black where it is 0.5, to the PNG file `path` (Fig. 3 and 4).

    Red circles and blue triangles are the pool (labels 1 and 0), those with a black edge are
    labelled, green ones are queried. One row of panels for each strategy.
    """
    columns = max(len(row) for row in rows)
    figure = new_figure(4.3 * columns, 3.9 * len(rows) + 0.5)
    figure.suptitle(title)
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    for line, panels in zip(grid, rows, strict=True):
        for axes, panel in zip(line, panels, strict=True):
            filled = axes.contourf(
                *panel.axes, panel.probability, levels=np.linspace(0, 1, 11), cmap="RdBu_r",
                alpha=0.55,
            )  # fmt: skip
            axes.contour(*panel.axes, panel.probability, levels=[0.5], colors="black")
            _scatter(axes, panel)
            axes.set_title(panel.title, fontsize=10)
            axes.set_aspect("equal")
    figure.colorbar(filled, ax=grid, shrink=0.7, label="p(y = 1 | x)")
    grid[0, 0].legend(loc="lower left", fontsize=7, framealpha=0.9)
    write_figure(figure, path)


def _scatter(axes: Axes, panel: Panel) -> None:
    labelled = np.zeros(len(panel.x), dtype=bool)
    labelled[panel.labelled] = True
    for label, colour, marker in ((1, _RED, "o"), (0, _BLUE, "^")):
        of_class = panel.y == label
        for mask, size, edge, what in (
            (of_class & ~labelled, 7, "none", "pool"),
            (of_class & labelled, 42, "black", "labelled"),
        ):
            x_1, x_2 = panel.x[mask].T
            axes.scatter(
                x_1, x_2, s=size, c=colour, marker=marker, edgecolors=edge,
                label=f"{what}, label {label}",
            )  # fmt: skip
    if len(panel.queried):
        x_1, x_2 = panel.x[panel.queried].T
        axes.scatter(
            x_1, x_2, s=46, c=_GREEN, marker="s", edgecolors="black", zorder=3,
            label="queried",
        )  # fmt: skip


def draw_updates(path: Path, errors: Mapping[str, Mapping[str, np.ndarray]], title: str) -> None:
    """Test error against updates, a panel for each data set, to the PNG file `path` (Fig. 5).

    `errors` is data set -> strategy -> float [S, T], 0..1, after each of T updates, S seeds. The
    band is the 95% confidence interval of the mean (normal approximation).
    """
    figure = new_figure(4.8 * len(errors), 3.8)
    figure.suptitle(title)
    panels = figure.subplots(1, len(errors), squeeze=False, sharey=True)[0]
    for axes, (dataset, strategies) in zip(panels, errors.items(), strict=True):
        for (name, values), style in zip(strategies.items(), styles(list(strategies)), strict=True):
            updates = np.arange(1, values.shape[1] + 1)
            mean = 100 * values.mean(axis=0)
            axes.plot(updates, mean, color=style.colour, linestyle=style.line, label=name)
            if len(values) > 1:
                half = 196 * values.std(axis=0, ddof=1) / len(values) ** 0.5
                axes.fill_between(
                    updates, mean - half, mean + half, color=style.colour, alpha=0.15, linewidth=0
                )
        seeds = len(next(iter(strategies.values())))
        axes.set_title(f"{dataset} ({counted(seeds, 'seed')})", fontsize=10)
        axes.set_xlabel("updates")
        axes.grid(alpha=0.25)
        axes.legend()
    panels[0].set_ylabel("test error [%]")
    panels[0].set_ylim(bottom=0.0)
    write_figure(figure, path)


def draw_losses(
    path: Path, panels: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, title: str
) -> None:
    """Losses and accuracy against labels, a panel for each variant, to the PNG `path` (Fig. 9).

    `panels` is variant -> {"test loss", "training loss", "test accuracy"} -> float [L], means over
    seeds, at `labels` int [L]; losses in nats on the left axis, accuracy (0..1) on the right.
    """
    figure = new_figure(5.0 * len(panels), 3.8)
    figure.suptitle(title)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    highest = max(curves[name].max() for curves in panels.values() for name in curves)
    least = 100 * min(curves["test accuracy"].min() for curves in panels.values())
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
        axes.set_ylabel("loss [nats]")
        right.set_ylabel("test accuracy [%]")
        handles = [line for (line,) in lines]
        axes.legend(handles, [line.get_label() for line in handles], loc="center right", fontsize=8)
    write_figure(figure, path)
