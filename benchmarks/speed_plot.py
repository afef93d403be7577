"""The picture of the ops' times: every opponent's in that of ours, op by op."""

from __future__ import annotations

from pathlib import Path

from cells import Row, distinct
from readme import contends, shape_of

from vaal_ext.report.canvas import new_figure, set_title, styles, write_figure

__all__ = ["draw_speed"]

_LINE = 0.21  # inches of a shape


def draw_speed(path: Path, rows: list[Row], title: str) -> None:
    """How many times as long each opponent takes: float32, one thread, a line for every op and
    shape, to the PNG file `path`."""
    rows = [
        row for row in rows if row["dtype"] == "float32" and row["threads"] == "1" and contends(row)
    ]
    heights, ops, height = {}, {}, 0.0
    for op, shape in distinct(rows, "op", "shape"):
        height += 1.0 if op in ops else 1.6  # room between the ops
        ops.setdefault(op, []).append(height)
        heights[op, shape] = height
    figure = new_figure(9.0, _LINE * (height + 1.6) + 1.4)
    set_title(figure, title)
    axes = figure.subplots()
    opponents = [opponent for (opponent,) in distinct(rows, "opponent")]
    for opponent, style in zip(opponents, styles(opponents), strict=True):
        mine = [row for row in rows if row["opponent"] == opponent]
        axes.plot(
            [float(row["ratio_to_ours"]) for row in mine],
            [heights[row["op"], row["shape"]] for row in mine],
            style.marker,
            color=style.colour,
            label=opponent,
        )
    ratios = [float(row["ratio_to_ours"]) for row in rows]
    axes.set_xscale("log")
    axes.set_xlim(min(0.7, min(ratios) / 1.2), max(ratios) * 1.2)
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    shown = [tick for tick in ticks if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.axvspan(axes.get_xlim()[0], 1, color="#F1F1F1", zorder=0)
    axes.axvline(1, color="#707070", linewidth=1)
    axes.set_xlabel("time, in that of vaal_ext (grey: the opponent is faster)")
    axes.set_yticks(list(heights.values()), [shape_of(shape) for _, shape in heights], fontsize=8)
    axes.set_ylim(height + 0.8, 0.8)
    for op, places in ops.items():
        # Left of the shapes, in the middle of its own.
        axes.annotate(
            op, (0, sum(places) / len(places)), (-105, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="center", fontsize=9,
        )  # fmt: skip
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    write_figure(figure, path)
