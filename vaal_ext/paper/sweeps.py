"""How settings were chosen: variants compared on the validation set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaal_ext.experiment.status import counted
from vaal_ext.report.canvas import new_figure, set_caption, set_title, write_figure
from vaal_ext.report.curves import write_csv
from vaal_ext.report.runs import Run
from vaal_ext.report.statistics import area_under_curve, mean_and_interval

__all__ = ["SweepRow", "draw_sweep", "sweep_rows", "write_sweep"]


@dataclass(frozen=True)
class SweepRow:
    """A variant: area under the budget curve in percent on the validation set (mean over `seeds`
    seeds, 95% bootstrap interval, NaN for one seed) and, for the record, on the test set."""

    variant: str
    val: float
    low: float
    high: float
    test: float
    seeds: int


def sweep_rows(groups: dict[str, list[Run]]) -> list[SweepRow]:
    """A row for each variant, in the order of the plan. ValueError for runs without a query."""
    rows = []
    for variant, runs in groups.items():
        val, test = (
            np.array([area_under_curve(run.labels, getattr(run, name)) for run in runs])
            for name in ("val_accuracy", "accuracy")
        )
        mean, low, high = (100 * float(value) for value in mean_and_interval(val))
        rows.append(SweepRow(variant, mean, low, high, 100 * float(test.mean()), len(runs)))
    return rows


def write_sweep(path: Path, rows: Sequence[SweepRow]) -> None:
    """The rows as CSV."""
    write_csv(
        path,
        ("variant", "val_area", "low", "high", "test_area", "seeds"),
        [
            (r.variant, *(round(v, 3) for v in (r.val, r.low, r.high, r.test)), r.seeds)
            for r in rows
        ],
    )


def draw_sweep(path: Path, rows: Sequence[SweepRow], title: str) -> None:
    """The areas on the validation set with their intervals, a line for each variant."""
    figure = new_figure(7.2, 0.32 * len(rows) + 1.6)
    axes = figure.subplots()
    height = np.arange(len(rows))[::-1]
    val = np.array([row.val for row in rows])
    spread = np.array([[row.val - row.low, row.high - row.val] for row in rows]).T
    axes.errorbar(val, height, xerr=np.nan_to_num(spread), fmt="o", color="#0072B2", capsize=3)
    axes.set_yticks(height, [row.variant for row in rows])
    axes.set_xlabel("area under the budget curve, validation set [%]")
    set_title(figure, title)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    seeds = max(row.seeds for row in rows)
    bars = "; bar: its 95% bootstrap interval" if seeds > 1 else ""
    set_caption(figure, f"Mean over {counted(seeds, 'seed')}{bars}.")
    write_figure(figure, path)
