"""The charts of a page, by plotly: learning curves, and a pool's LDR. It is imported when one is
drawn, not before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vaal_ext.experiment.status import counted
from vaal_ext.report.canvas import Style, styles
from vaal_ext.report.curve_figure import MOST_BANDS
from vaal_ext.report.figures import LDR_COLOURS
from vaal_ext.report.histogram import LEAST, LDRBins

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from vaal_ext.report.curves import Curve

__all__ = ["curve_chart", "histogram_chart", "interval_chart"]

_SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down",
    "P": "cross", "X": "x", "<": "triangle-left", "*": "star",
}  # fmt: skip
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def curve_chart(curves: Sequence[Curve]) -> Figure:
    """Test accuracy against labels; a click on a name hides its curve, band and all."""
    from plotly import graph_objects as go

    figure, banded = go.Figure(), len(curves) <= MOST_BANDS
    for curve, style in zip(curves, styles([curve.name for curve in curves]), strict=True):
        known = ~np.isnan(curve.low)
        if banded and known.sum() > 1:
            x = curve.labels[known].tolist()
            edges = np.concatenate([curve.high[known], curve.low[known][::-1]])
            figure.add_scatter(
                x=[*x, *reversed(x)], y=(100 * edges).tolist(), fill="toself", mode="none",
                fillcolor=_pale(style.colour), legendgroup=curve.name, showlegend=False,
                hoverinfo="skip", name=curve.name,
            )  # fmt: skip
        figure.add_scatter(
            x=curve.labels.tolist(), y=(100 * curve.mean).tolist(), name=curve.name,
            legendgroup=curve.name, mode="lines+markers", line=_line(style), marker=_marker(style),
            text=[_read(curve, i) for i in range(len(curve.labels))], hoverinfo="text",
        )  # fmt: skip
    _lay_out(figure, "labelled samples", "test accuracy [%]")
    return figure


def _read(curve: Curve, i: int) -> str:
    """What stands beside the mouse."""
    text = f"{curve.name}<br>{curve.labels[i]:,} labels: {100 * curve.mean[i]:.2f} %"
    if not math.isnan(curve.low[i]):
        text += f" [{100 * curve.low[i]:.2f}, {100 * curve.high[i]:.2f}]"
    return f"{text}<br>{counted(int(curve.runs[i]), 'seed')}"


def _pale(colour: str) -> str:
    """A colour "#rrggbb" of which little is to be seen."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.15)"


def _line(style: Style) -> dict[str, object]:
    return {"color": style.colour, "width": 2.5, "dash": "dash" if style.line == "--" else "solid"}


def _marker(style: Style) -> dict[str, object]:
    hollow = "" if style.fill == style.colour else "-open"
    return {"color": style.colour, "size": 8, "symbol": _SYMBOLS[style.marker] + hollow}


def histogram_chart(bins: LDRBins, percentile: float) -> Figure:
    """How many samples of a pool have which LDR, and the threshold.

    The axis is drawn as that of the logarithm: the bins are as wide as each other there.
    """
    from plotly import graph_objects as go

    figure = go.Figure()
    edges = np.log10(bins.edges)
    names = ("below the threshold", "candidates left", "queried")
    highest = np.zeros(len(edges) - 1)
    for name, colour, values in zip(names, LDR_COLOURS, bins.groups, strict=True):
        # As drawn: rounding must not move the threshold's own sample below it.
        counts = np.histogram(values, bins.edges)[0]
        highest += counts
        ranges = zip(bins.edges[:-1], bins.edges[1:], counts, strict=True)
        figure.add_bar(
            x=((edges[:-1] + edges[1:]) / 2).tolist(), width=np.diff(edges).tolist(),
            y=counts.tolist(), name=f"{name} ({len(values):,})", marker={"color": colour},
            text=[f"{name}: {n:,}<br>LDR {low:.3g} to {high:.3g}" for low, high, n in ranges],
            hoverinfo="text", textposition="none",
        )  # fmt: skip
    threshold = f"percentile {percentile:g}: LDR {bins.threshold:.3g}"
    where = float(np.log10(max(bins.threshold, LEAST)))
    figure.add_scatter(
        x=[where, where], y=[0, float(highest.max())], mode="lines", name=threshold,
        line={"color": "#000000", "width": 2, "dash": "dash"}, text=threshold, hoverinfo="text",
    )  # fmt: skip
    _lay_out(figure, "Local Distributional Roughness [nats]", "samples of the pool per bin")
    whole = range(math.floor(edges[0]), math.ceil(edges[-1]) + 1)
    step = max(1, len(whole) // 8)
    powers = [power for power in whole if power % step == 0]
    names_of_powers = [f"10{str(power).translate(_SUPERSCRIPT)}" for power in powers]
    figure.update_layout(barmode="stack", bargap=0)
    figure.update_xaxes(tickvals=powers, ticktext=names_of_powers)
    return figure


def interval_chart(
    labels: Sequence[int],
    accuracy: Sequence[float],
    below: Sequence[float],
    above: Sequence[float],
    names: Sequence[str],
) -> Figure:
    """Accuracies [%] against labels, each with an interval that reaches so far below and above it,
    and a name."""
    from plotly import graph_objects as go

    figure = go.Figure()
    rows = zip(names, labels, accuracy, below, above, strict=True)
    figure.add_scatter(
        x=list(labels), y=list(accuracy), mode="lines+markers", name="accuracy",
        line={"color": "#0072B2", "width": 2.5}, marker={"size": 8}, hoverinfo="text",
        error_y={"array": list(above), "arrayminus": list(below), "color": "#4d5763"},
        text=[
            f"{name}<br>{n:,} labels: {mean:.1f} % [{mean - low:.1f}, {mean + high:.1f}]"
            for name, n, mean, low, high in rows
        ],
    )  # fmt: skip
    _lay_out(figure, "labels trained on", "accuracy [%]")
    return figure


def _lay_out(figure: Figure, x: str, y: str) -> None:
    figure.update_layout(
        template="plotly_white",
        font={"color": "#1b1f24", "size": 14, "family": "system-ui, sans-serif"},
        margin={"l": 60, "r": 10, "t": 10, "b": 50},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top", "traceorder": "normal"},
        hovermode="closest",
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(title={"text": x}, showline=True, linecolor="#4d5763")
    figure.update_yaxes(title={"text": y}, showline=True, linecolor="#4d5763")
