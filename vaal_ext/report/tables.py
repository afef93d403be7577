"""A comparison as tables: statistics.csv with every number, statistics.md with what to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vaal_ext.files.atomic import write_atomically
from vaal_ext.report.comparison import Comparison, Measurement
from vaal_ext.report.curves import write_csv
from vaal_ext.report.statistics import MIN_PAIRS
from vaal_ext.report.wording import markdown

__all__ = [
    "HOW_TO_READ",
    "HOW_TO_READ_WINS",
    "caveats",
    "sentence",
    "strategy_lines",
    "strategy_table",
    "win_lines",
    "write_statistics",
]

HOW_TO_READ = (
    "Accuracies in %. Mean over seeds and, in brackets, its 95% bootstrap interval (seeds are "
    "resampled; too narrow with few of them: with 5 it holds the true mean 5 times in 6, not "
    "19 in 20). The area is the mean accuracy over the budget. Differences are taken seed by "
    "seed; p is of Wilcoxon's signed-rank test, two-sided, after Holm's correction over the "
    "strategies in the column (in statistics.csv: of each measure and number of labels, not "
    "over these). A query's time is the median over the rounds, as the runs recorded it."
)
HOW_TO_READ_WINS = (
    "The share of seeds and rounds in which one is more accurate than the other; a tie "
    "counts for neither."
)


def _find(comparison: Comparison, **wanted: object) -> dict[str, Measurement]:
    """The rows that have these values, by strategy."""
    return {
        row.strategy: row
        for row in comparison.measurements
        if all(getattr(row, key) == value for key, value in wanted.items())
    }


def _compared(comparison: Comparison) -> dict[str, object]:
    """What the strategies are judged by: the area; the accuracy where one number has no area."""
    if len(comparison.labels) > 1:
        return {"measure": "area"}
    return {"measure": "accuracy", "labels": int(comparison.labels[-1])}


def _percent(row: Measurement, sign: str = "") -> str:
    text = f"{100 * row.value:{sign}.2f}"
    if math.isnan(row.low):
        return text
    return f"{text} [{100 * row.low:{sign}.2f}, {100 * row.high:{sign}.2f}]"


def _p(row: Measurement) -> str:
    return "–" if math.isnan(row.p_holm) else f"{row.p_holm:.2g}"


def strategy_lines(comparison: Comparison) -> list[list[str]]:
    """A table whose head is the first line: a row for each strategy, the best on top; of a
    comparison with measurements."""
    last = int(comparison.labels[-1])
    key = _compared(comparison)
    judged = _find(comparison, against=None, **key)
    accuracy = _find(comparison, measure="accuracy", labels=last, against=None)
    seconds = _find(comparison, measure="query_seconds")
    header = ["strategy", *(["area"] if key["measure"] == "area" else [])]
    header.append(f"accuracy at {last} labels")
    for against in comparison.baselines:
        header += [f"{key['measure']} − {against}", "p (Holm)"]
    if seconds:
        header.append("query [s]")
    lines = [header]
    for name in sorted(comparison.names, key=lambda name: -judged[name].value):
        line = [name]
        if key["measure"] == "area":
            line.append(_percent(judged[name]))
        line.append(_percent(accuracy[name]))
        for against in comparison.baselines:
            row = _find(comparison, against=against, **key).get(name)
            line += ["", ""] if row is None else [_percent(row, "+"), _p(row)]
        if seconds:
            line.append(f"{seconds[name].value:.3g}")
        lines.append(line)
    return lines


def strategy_table(comparison: Comparison) -> str:
    """:func:`strategy_lines` in Markdown."""
    return markdown(strategy_lines(comparison))


def caveats(comparison: Comparison) -> list[str]:
    """What has to be known of the p-values and intervals of :func:`strategy_table`; may be none."""
    tests = [
        row
        for against in comparison.baselines
        for row in _find(comparison, against=against, **_compared(comparison)).values()
    ]
    untested = [f"{row.strategy} and {row.against}" for row in tests if math.isnan(row.p)]
    notes = []
    if len(comparison.seeds) < MIN_PAIRS and untested:
        notes.append(
            f"no p-values: Wilcoxon's test needs {MIN_PAIRS} pairs to reach p < 0.05, and there "
            f"are {len(comparison.seeds)}"
        )
    elif untested:
        notes.append(
            # The names may hold commas.
            f"no p-value for {'; '.join(untested)}: they differ on fewer than {MIN_PAIRS} seeds, "
            "with which Wilcoxon's test cannot reach p < 0.05"
        )
    if len(comparison.seeds) == 1:
        notes.append("no intervals: there is one seed")
    return notes


def win_lines(names: Sequence[str], wins: np.ndarray) -> list[list[str]]:
    """The shares of :func:`vaal_ext.report.statistics.win_matrix`, float64 [K, K] of the K `names`,
    as a table whose head is the first line."""
    lines = [["row beats column [%]", *names]]
    for name, row in zip(names, wins, strict=True):
        cells = [
            "" if other == name else f"{100 * share:.1f}"
            for other, share in zip(names, row, strict=True)
        ]
        lines.append([name, *cells])
    return lines


def sentence(text: str) -> str:
    """A note as a sentence: a capital letter, a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def write_statistics(comparison: Comparison, dataset: str, out: Path) -> None:
    """statistics.csv (a row for each number) and statistics.md into the folder `out`.

    The comparison must have measurements. The columns of the CSV file are the fields of
    :class:`vaal_ext.report.comparison.Measurement`.
    """
    write_csv(out / "statistics.csv", Measurement._fields, comparison.measurements)
    paragraphs = [
        f"# {dataset}",
        sentence(comparison.subset),
        strategy_table(comparison),
        *(sentence(note) for note in caveats(comparison)),
        HOW_TO_READ,
    ]
    if comparison.wins is not None:
        wins = markdown(win_lines(comparison.names, comparison.wins))
        paragraphs += [wins, HOW_TO_READ_WINS]
    with write_atomically(out / "statistics.md", "w") as handle:
        handle.write("\n\n".join(paragraphs) + "\n")
