"""The picture of the rounding: what each formula loses while the step gets short."""

from __future__ import annotations

from pathlib import Path

from cells import Row, distinct

from vaal_ext.report.canvas import new_figure, set_title, styles, write_figure

__all__ = ["draw_accuracy"]


def draw_accuracy(path: Path, rows: list[Row], title: str) -> None:
    """Relative error over the step, over all classes and spreads, to the PNG file `path`: the
    median row as a line, up to the worst as a band."""
    rows = [row for row in rows if row["what"] == "gradient" and row["classes"] == "all"]
    # The two that differ from the textbook's only in who wrote them down are in the table.
    methods = ["vaal_ext, float32", "textbook, float32", "textbook, float64"]
    assert set(methods) <= {method for (method,) in distinct(rows, "method")}
    figure = new_figure(5.0, 3.6)
    set_title(figure, title)
    axes = figure.subplots()
    for method, style in zip(methods, styles(methods), strict=True):
        mine = [row for row in rows if row["method"] == method]
        steps = [float(row["step"]) for row in mine]
        median, worst = ([float(row[name]) for row in mine] for name in ("median", "worst"))
        axes.fill_between(steps, median, worst, color=style.colour, alpha=0.15, linewidth=0)
        axes.plot(steps, median, style.marker, ls=style.line, color=style.colour, label=method)
    axes.set(xscale="log", yscale="log", xlabel="step s", ylabel="relative error of the gradient")
    axes.invert_xaxis()
    axes.minorticks_off()
    axes.axhline(1, color="#707070", linewidth=1)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    write_figure(figure, path)
