"""The README's picture of queries: what each costs, and how much of the true top tenth it picks."""

from __future__ import annotations

from pathlib import Path

from cells import Row, distinct

from vaal_ext.report.canvas import new_figure, set_title, styles, write_figure

__all__ = ["draw_queries"]


def draw_queries(path: Path, rows: list[Row], title: str) -> None:
    """The time of a query in that of entropy's (one thread, log axis) against the share of its
    picks in the true top tenth, a panel for every pool, to the PNG file `path`."""
    rows = [row for row in rows if row["threads"] == "1" and row["in_top_tenth"]]
    pools = distinct(rows, "network", "pool")
    figure = new_figure(4.6 * len(pools) + 2, 4.8)
    set_title(figure, title)
    panels = figure.subplots(1, len(pools), sharey=True, squeeze=False)[0]
    names = [name for (name,) in distinct(rows, "query")]
    shown = set()
    for axes, (network, pool) in zip(panels, pools, strict=True):
        for name, style in zip(names, styles(names), strict=True):
            for row in rows:
                if (row["network"], row["pool"], row["query"]) != (network, pool, name):
                    continue
                axes.plot(
                    [float(row["ratio_to_entropy"])],
                    [float(row["in_top_tenth"])],
                    style.marker,
                    color=style.colour,
                    label=None if name in shown else name,
                )
                shown.add(name)
        axes.set_xscale("log")
        axes.set_title(f"{network}, {int(pool):,} samples", fontsize=10)
        axes.set_xlabel("time of a query, in that of entropy")
        axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of the picks in the true top tenth")
    figure.legend(loc="outside right center", frameon=False)
    write_figure(figure, path)
