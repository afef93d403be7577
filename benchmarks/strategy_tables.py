"""Which strategy comes to what on which data, from the tables of `vaal-ext reproduce`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from vaal_ext.report.statistics import holm, mean_and_interval, paired_difference, signed_rank_p
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


def spread(path: Path, part: str = "val") -> str:
    """What spread.py found: each query's area on the validation set, or on the "test" set, and what
    it is above that of `margin`, mean over the seeds and twice its standard error, in points."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    area = {(row["query"], row["seed"]): float(row[f"{part}_area"]) for row in rows}
    lines = []
    for query in dict.fromkeys(row["query"] for row in rows):
        seeds = [seed for name, seed in area if name == query]
        less = np.array([area[query, seed] - area["margin", seed] for seed in seeds])
        error = 2 * float(less.std(ddof=1)) / len(less) ** 0.5
        beside = f"{less.mean():+.1f} ± {error:.1f}" if query != "margin" else ""
        mean = np.mean([area[query, seed] for seed in seeds])
        lines.append((float(less.mean()), [f"`{query}`", str(len(seeds)), f"{mean:.1f}", beside]))
    ranked = [cells for _, cells in sorted(lines, key=lambda line: -line[0])]
    return markdown([["query", "seeds", "area", "above `margin`"], *ranked])


def ahead(paper: Path) -> str:
    """Which query is ahead: of each data set whose runs are committed, at three budgets.

    Held against `vaal` seed by seed, without the regulariser and with it, with the 95% bootstrap
    interval and Wilcoxon's p after Holm's correction over the table.
    """
    lines: list[list[str]] = []
    tests: list[float] = []
    for path in sorted(paper.glob("*/statistics_*/runs.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if "train_seconds" in row]
        budgets = sorted({int(row["labels"]) for row in rows})[1:]
        if not budgets or "vaal" not in {row["strategy"] for row in rows}:
            continue
        data = path.parent.name.removeprefix("statistics_")
        for labels in dict.fromkeys((budgets[0], budgets[len(budgets) // 2], budgets[-1])):
            at = {
                (row["strategy"], row["seed"]): 100 * float(row["accuracy"])
                for row in rows
                if int(row["labels"]) == labels
            }
            lines.append([data, f"{labels:,}", *_best(at, "", tests), *_best(at, "+vat", tests)])
    adjusted = iter(holm(np.array(tests)))
    for line in lines:
        for place, cell in enumerate(line):
            if "{p}" in cell:
                p = next(adjusted)
                line[place] = cell.replace("{p}", "–" if np.isnan(p) else f"{p:.2g}")
    head = ["data", "labels", "ahead", "of `vaal` by", "ahead with `+vat`", "of `vaal+vat` by"]
    return markdown([head, *lines])


def _best(at: dict[tuple[str, str], float], suffix: str, tests: list[float]) -> list[str]:
    """The row with the largest mean of those that end so, over the seeds that all of them have, and
    its lead; the lead's p goes to `tests`, in the order of the cells. "vaal" leads the second."""
    names = [name for name in dict.fromkeys(n for n, _ in at) if _suffix(name) == suffix]
    if f"vaal{suffix}" not in names:
        return ["", ""]
    shared = set.intersection(*({seed for n, seed in at if n == name} for name in names))
    values = {name: np.array([at[name, seed] for seed in sorted(shared)]) for name in names}
    first, second = sorted(names, key=lambda name: -values[name].mean())[:2]
    other = second if first == f"vaal{suffix}" else f"vaal{suffix}"
    lead = paired_difference(values[first], values[other])
    mean, low, high = (float(value) for value in mean_and_interval(lead))
    tests.append(signed_rank_p(lead))
    against = f" of `{other}`" if other == second and first == f"vaal{suffix}" else ""
    return [
        f"`{first}` {values[first].mean():.1f} %",
        f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]{against}, p = {{p}}, {len(lead)} seeds",
    ]


def _suffix(name: str) -> str:
    return "+vat" if "+vat" in name else ""
