"""Learning curves over seeds, and the tables made of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaal_ext.files.atomic import write_atomically
from vaal_ext.report.runs import Run
from vaal_ext.report.statistics import area_under_curve, mean_and_interval

__all__ = ["Curve", "accuracy_table", "learning_curves", "write_csv", "write_runs", "write_tables"]


@dataclass(frozen=True)
class Curve:
    """Test accuracy (0..1) of a group of runs that differ in their seed.

    Attributes:
        name: of the group.
        labels, runs: int64 [L], each number of labels and how many runs have come that far.
        mean, std: float64 [L], over those runs; std is NaN for one run.
        low, high: float64 [L], the 95% bootstrap interval of the mean
            (:func:`vaal_ext.report.statistics.mean_and_interval`), or NaN.
        area: the mean accuracy over the budget that all compared runs share, as mean and standard
            deviation over the runs; NaN where they share fewer than two numbers of labels.
    """

    name: str
    labels: np.ndarray
    runs: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    area: tuple[float, float]


def _mean_and_std(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


def learning_curves(groups: dict[str, list[Run]]) -> list[Curve]:
    """One curve per group of runs (as :func:`vaal_ext.report.runs.group_runs` gives them)."""
    every = [run for runs in groups.values() for run in runs]
    shared = set(every[0].labels.tolist()).intersection(*(run.labels.tolist() for run in every))
    budget = np.array(sorted(shared))
    curves = []
    for name, runs in groups.items():
        labels = np.unique(np.concatenate([run.labels for run in runs]))
        count = np.zeros(len(labels), dtype=np.int64)
        mean, std, low, high = (np.full(len(labels), math.nan) for _ in range(4))
        for position, budget_so_far in enumerate(labels):
            values = np.concatenate([run.accuracy[run.labels == budget_so_far] for run in runs])
            count[position] = len(values)
            mean[position], std[position] = _mean_and_std(values)
            _, low[position], high[position] = mean_and_interval(values)
        area = (math.nan, math.nan)
        if len(budget) > 1:
            on_budget = np.array([run.accuracy[np.isin(run.labels, budget)] for run in runs])
            area = _mean_and_std(area_under_curve(budget, on_budget))
        curves.append(Curve(name, labels, count, mean, std, low, high, area))
    return curves


def _percent(mean: float, std: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{100 * mean:.2f}" if math.isnan(std) else f"{100 * mean:.2f} ± {100 * std:.2f}"


def accuracy_table(curves: Sequence[Curve], columns: int = 6) -> str:
    """The table in plain text: accuracy [%] (mean ± standard deviation over seeds) at up to
    `columns` numbers of labels spread over the budget, and the area under the budget curve."""
    budgets = np.unique(np.concatenate([curve.labels for curve in curves]))
    picked = budgets[np.unique(np.linspace(0, len(budgets) - 1, columns).round().astype(int))]
    # The best on top; what has no area at the bottom.
    ranked = sorted(curves, key=lambda c: (math.isnan(c.area[0]), -c.area[0]))
    lines = [["test accuracy [%]", "seeds", *(f"{b} labels" for b in picked), "area"]]
    for curve in ranked:
        cells = [curve.name, str(curve.runs.max())]
        for budget in picked:
            at = np.flatnonzero(curve.labels == budget)
            cells.append(_percent(curve.mean[at[0]], curve.std[at[0]]) if len(at) else "-")
        lines.append([*cells, _percent(*curve.area)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = []
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        texts.append("  ".join([line[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join(texts)


def write_tables(curves: Sequence[Curve], out: Path) -> None:
    """accuracy.csv (a row for each curve and number of labels) and area.csv (a row for each curve)
    into the folder `out`; accuracies in 0..1, a cell is empty where one run alone has no spread."""
    rows = [
        (curve.name, *(column[i].item() for column in columns))
        for curve in curves
        for columns in [(curve.labels, curve.runs, curve.mean, curve.std, curve.low, curve.high)]
        for i in range(len(curve.labels))
    ]
    header: tuple[str, ...] = (
        "strategy",
        "labels",
        "seeds",
        "mean",
        "std",
        "band_low",
        "band_high",
    )
    write_csv(out / "accuracy.csv", header, rows)
    header = ("strategy", "seeds", "area_mean", "area_std")
    write_csv(out / "area.csv", header, [(c.name, c.runs.max(), *c.area) for c in curves])


def write_runs(groups: dict[str, list[Run]], path: Path) -> None:
    """What everything else is made of, as CSV: a row for each round of each run of the groups.

    Accuracies in 0..1, losses in nats; ``query_seconds`` is what the query before took, and
    ``train_seconds`` what the training with its labels did.
    """
    columns = (
        "accuracy", "val_accuracy", "test_loss", "train_loss", "train_seconds", "query_seconds"
    )  # fmt: skip
    rows = [
        (name, run.config["seed"], labels, *(getattr(run, c)[i].item() for c in columns))
        for name, runs in groups.items()
        for run in runs
        for i, labels in enumerate(run.labels.tolist())
    ]
    write_csv(path, ("strategy", "seed", "labels", *columns), rows)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table as a CSV file, whole or not at all; NaN and None are empty cells."""
    with write_atomically(path, "w") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([["" if v != v else v for v in row] for row in rows])
