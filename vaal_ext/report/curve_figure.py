"""The picture of learning curves: accuracy against labels, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaal_ext.experiment.status import counted
from vaal_ext.report.canvas import Style, new_figure, set_caption, set_title, styles, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vaal_ext.report.curves import Curve

__all__ = ["MOST_BANDS", "draw_learning_curves", "squeezed_from"]

MOST_BANDS = 5  # the bands of more curves would hide each other
# The bootstrap draws the lowest of three seeds three times with p = 1/27, which is more than 2.5 %.
_RANGE_UP_TO = 3
_LEAST_RANGE = 0.1  # within ten points of accuracy nothing is squeezed
_GREY = "#707070"


def squeezed_from(lowest: np.ndarray, highest: float) -> float | None:
    """The value above which the axis should be spread, because a few rows lie far below the others.

    That is where at most a third of the curves, the lowest ones, have half of the axis or more to
    themselves. Two curves have no outlier.

    Args:
        lowest: float [K], the least value of each curve.
        highest: the greatest value of all.

    Returns:
        the least value of the other curves; None where the axis need not be broken.
    """
    ordered = np.sort(lowest)
    whole = highest - ordered[0]
    if whole < _LEAST_RANGE:
        return None
    for bad in range(1, len(ordered) // 3 + 1):
        if highest - ordered[bad] <= whole / 2:
            return float(ordered[bad])
    return None


def draw_learning_curves(
    path: Path, curves: Sequence[Curve], dataset: str, *, made_of: str = ""
) -> None:
    """Test accuracy against the number of labels, one line per curve, to the PNG file `path`.

    The band is the 95% bootstrap interval of the mean over seeds, where the curves are so few that
    their bands do not hide each other; the caption says what it is. The axis holds all that is
    drawn. Where a few curves lie far below the others (:func:`squeezed_from`), what is below the
    others stands in a panel of its own, with another scale. `made_of` opens the caption: of what
    runs the curves are.
    """
    seeds = sorted({int(curve.runs.max()) for curve in curves})
    banded = len(curves) <= MOST_BANDS and seeds[-1] > 1
    lows = [curve.low if banded else curve.mean for curve in curves]
    highs = [curve.high if banded else curve.mean for curve in curves]
    # fmin: where one run alone has come that far there is no band.
    lowest = np.array([np.fmin(low, c.mean).min() for low, c in zip(lows, curves, strict=True)])
    highest = max(np.fmax(high, c.mean).max() for high, c in zip(highs, curves, strict=True))

    figure = new_figure(8.6, 4.8)
    panels = _panels(figure, lowest, float(highest))
    for curve, style in zip(curves, styles([curve.name for curve in curves]), strict=True):
        for axes in panels:
            _draw_curve(axes, curve, style, banded, name_seeds=len(seeds) > 1)
    labels = np.unique(np.concatenate([curve.labels for curve in curves]))
    bottom = panels[-1]
    if len(labels) <= 12:
        bottom.set_xticks(labels)
    bottom.set_xlabel("labelled samples")
    panels[0].set_ylabel("test accuracy [%]")
    set_title(figure, f"Active learning on {dataset}")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, handlelength=3.2)
    said = _caption(seeds, banded)
    set_caption(figure, f"{made_of[0].upper()}{made_of[1:]}. {said}" if made_of else said)
    write_figure(figure, path)


def _panels(figure: Figure, lowest: np.ndarray, highest: float) -> list[Axes]:
    """One panel, or two where the axis is broken, with their limits; the upper one first."""
    cut = squeezed_from(lowest, highest)
    margin = max(1.0, 6 * (highest - (lowest.min() if cut is None else cut)))  # in points
    top, least = min(100.5, 100 * highest + margin), 100 * float(lowest.min())
    if cut is None:
        panels = [figure.subplots()]
        panels[0].set_ylim(max(0.0, least - margin), top)
    else:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        panels = [upper, lower]
        figure.set_layout_engine("constrained", h_pad=0.03, hspace=0.0)
        edge = 100 * cut - margin
        upper.set_ylim(edge, top)
        lower.set_ylim(max(0.0, least - 0.1 * (edge - least)), edge)
        _mark_break(upper, lower)
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return panels


def _mark_break(upper: Axes, lower: Axes) -> None:
    """Slanted strokes where the two scales meet, and the lower panel in grey, with a word."""
    upper.spines["bottom"].set_visible(False)
    upper.tick_params(bottom=False)
    lower.set_facecolor("#F1F1F1")
    lower.set_ylabel("other\nscale", color=_GREY)
    bottom, edge = lower.get_ylim()
    lower.locator_params(axis="y", nbins=4)
    free = edge - 0.15 * (edge - bottom)  # below the stroke
    lower.set_yticks([tick for tick in lower.get_yticks() if bottom <= tick <= free])
    for axes, height in ((upper, 0), (lower, 1)):
        axes.plot(
            (0, 1), (height, height), transform=axes.transAxes, linestyle="none", color="black",
            marker=[(-1, -0.6), (1, 0.6)], markersize=9, clip_on=False,
        )  # fmt: skip


def _draw_curve(axes: Axes, curve: Curve, style: Style, banded: bool, name_seeds: bool) -> None:
    if banded:
        low, high = 100 * curve.low, 100 * curve.high
        axes.fill_between(curve.labels, low, high, color=style.colour, alpha=0.12, linewidth=0)
        for edge in (low, high):
            axes.plot(curve.labels, edge, color=style.colour, linewidth=0.6, alpha=0.5)
    seeds = f" ({counted(int(curve.runs.max()), 'seed')})" if name_seeds else ""
    bottom, top = axes.get_ylim()  # a marker beyond would be cut in two
    inside = (100 * curve.mean >= bottom) & (100 * curve.mean <= top)
    axes.plot(
        curve.labels,
        100 * curve.mean,
        color=style.colour,
        marker=style.marker,
        markerfacecolor=style.fill,
        linestyle=style.line,
        markersize=4.5,
        markevery=np.flatnonzero(inside).tolist(),
        linewidth=1.8,
        label=f"{curve.name}{seeds}",
    )


def _caption(seeds: Sequence[int], banded: bool) -> str:
    """What the lines and bands are, of curves with these numbers of seeds, in rising order."""
    if seeds[-1] == 1:
        return "One seed: how far others would lie from it is not known."
    of = counted(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    if not banded:
        return f"Mean over {of}; the bands of so many curves would hide each other."
    if seeds[-1] <= _RANGE_UP_TO:
        band = "from the lowest to the highest seed, which is the 95% bootstrap interval of so few"
    elif seeds[0] <= _RANGE_UP_TO:
        band = f"its 95% bootstrap interval (of {_RANGE_UP_TO} or fewer: from lowest to highest)"
    else:
        band = "its 95% bootstrap interval"
    return f"Mean over {of}; band: {band}."
