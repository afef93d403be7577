"""Adds the runs of `vaal-ext reproduce` to the committed ones, and draws the tables of all of them.

    python benchmarks/collect.py OUT EXHIBIT... [--data-root ROOT] [--data DATA]
                                 [--pool-size N] [--seeds N] [--into NAME]

OUT is the folder that `vaal-ext reproduce EXHIBIT --out OUT` filled; the other options are those of
that command. Every round of every finished run goes to
benchmarks/results/paper/EXHIBIT/statistics_DATASET/runs.csv, and what is drawn from there, as
`reproduce` draws it, has the runs of earlier calls too. So runs may be made a few at a time, on any
machine; where a run is there twice the committed one stays. Without OUT (`-`) everything is drawn
anew from the committed runs.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vaal_ext.paper.plan import EXHIBITS, Exhibit
from vaal_ext.paper.planned import Overrides, PlannedRun, runs_of
from vaal_ext.paper.show import show
from vaal_ext.report.curves import write_runs
from vaal_ext.report.runs import Run

PAPER = Path(__file__).resolve().parent / "results" / "paper"
COLUMNS = (
    "accuracy", "val_accuracy", "test_loss", "train_loss", "train_seconds", "query_seconds"
)  # fmt: skip
MOST_SEEDS = 100  # more than any exhibit has been run with

Committed = dict[tuple[str, int], list[dict[str, str]]]  # rows of a strategy and seed


def committed(path: Path) -> Committed:
    """The rounds that a runs.csv holds; none where there is no such file."""
    found: Committed = {}
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if "train_seconds" not in row:  # in those days `vaal` had the paper's search
                    raise SystemExit(f"{path} is of an older version: move it away")
                found.setdefault((row["strategy"], int(row["seed"])), []).append(row)
    return found


def run_from(item: PlannedRun, rows: list[dict[str, str]]) -> Run:
    """The run that these rounds are of, which `item` planned."""
    columns = {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}
    labels = np.array([int(row["labels"]) for row in rows], dtype=np.int64)
    return Run(item.folder, asdict(item.config.settings), "", labels, **columns)


def all_runs(
    exhibit: Exhibit, overrides: Overrides, out: Path | None, folder: Path
) -> Iterator[tuple[PlannedRun, Run]]:
    """Every finished run of the exhibit, committed or in `out`."""
    known: dict[str, Committed] = {}
    for item in runs_of(exhibit, overrides, out or Path("nowhere")):
        rows = known.setdefault(
            item.dataset, committed(folder / f"statistics_{item.dataset}" / "runs.csv")
        ).get((item.label, item.config.settings.seed))
        found = run_from(item, rows) if rows else item.load() if out is not None else None
        if found is not None and found.finished:
            yield item, found


def collect(
    name: str, overrides: Overrides, out: Path | None, into: str | None = None
) -> Iterator[str]:
    """Draws the exhibit into benchmarks/results/paper/INTO, by default its own name, from all runs;
    lines to print."""
    exhibit, folder = EXHIBITS[name], PAPER / (into or name)
    results: dict[str, dict[str, list[Run]]] = {}
    for item, run in all_runs(exhibit, overrides, out, folder):
        results.setdefault(item.dataset, {}).setdefault(item.label, []).append(run)
    if not results:
        raise SystemExit(f"there is no finished run of {name}")
    for dataset, groups in results.items():
        kept = folder / f"statistics_{dataset}"
        kept.mkdir(parents=True, exist_ok=True)
        write_runs(groups, kept / "runs.csv")  # first: what is drawn may need more than one call
    yield from show(name, exhibit, results, folder, replace=True)
    for page in folder.glob("statistics_*/report.html"):
        page.unlink()  # megabytes, and drawn from the same runs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out")
    parser.add_argument("exhibits", nargs="+", choices=sorted(EXHIBITS))
    parser.add_argument("--data-root")
    parser.add_argument("--data")
    parser.add_argument("--pool-size", type=int)
    parser.add_argument("--seeds", type=int, default=MOST_SEEDS)
    parser.add_argument("--into")
    given = parser.parse_args()
    overrides = Overrides(
        data_root=given.data_root, data=given.data, pool_size=given.pool_size, seeds=given.seeds
    )
    out = None if given.out == "-" else Path(given.out)
    for name in given.exhibits:
        for line in collect(name, overrides, out, given.into):
            print(line)


if __name__ == "__main__":
    main()
