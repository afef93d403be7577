"""Which strategy comes to what on which data, from the tables of `vaal-ext reproduce`."""

from __future__ import annotations

import csv
from pathlib import Path

from vaal_ext.report.wording import markdown

STRATEGIES = ("random", "entropy", "margin", "vaal")
# The runs that benchmarks/RESULTS.md tells of: the data, and the folder of their statistics.
_RUNS = (
    ("digits", "digits/statistics_digits"),
    ("MNIST", "table2-six-seeds/statistics_mnist"),
    ("MNIST", "table2/statistics_mnist"),
    ("Fashion-MNIST", "fashion/statistics_fashion-mnist"),
    ("CIFAR-10", "table4/statistics_cifar10"),
    ("circles", "toys/statistics_circles"),
    ("moons", "toys/statistics_moons"),
)


def strategies(paper: Path, suffix: str = "") -> str:
    """The mean area under the budget curve in percent, of each strategy with `suffix` behind it.

    Data on which `vaal` was not run with the suffix have no line.
    """
    body = []
    for data, folder in _RUNS:
        with open(paper / folder / "statistics.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        alone = [row for row in rows if not row["against"]]
        area = {row["strategy"]: row for row in alone if row["measure"] == "area"}
        if f"vaal{suffix}" not in area:
            continue
        labels = [int(row["labels"]) for row in alone if row["labels"]]
        cells = [
            f"{100 * float(area[name + suffix]['value']):.1f}" if name + suffix in area else "–"
            for name in STRATEGIES
        ]
        span = f"{min(labels):,} to {max(labels):,}"
        body.append([data, span, area[f"vaal{suffix}"]["n"], *cells])
    head = ["data", "labels", "seeds", *(f"`{name}{suffix}`" for name in STRATEGIES)]
    return markdown([head, *body])
