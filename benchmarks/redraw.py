"""Redraws the committed pictures that are older than their data or than the code that draws them.

    python benchmarks/redraw.py

Every picture is drawn from a file beside it. What it was drawn from, by which code, and what came
out stand in benchmarks/results/pictures.csv as SHA-256 sums; a test compares them. The sums are of
text and arrays, so they are the same on every machine, whatever its fonts make of a picture. A
picture whose data are not in the repository stands in ``NOT_REDRAWN``, with what it would take.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from readme import ROOT
from speed_plot import draw_speed

from vaal_ext.report import canvas
from vaal_ext.report.curve_figure import draw_learning_curves
from vaal_ext.report.curves import Curve, write_csv
from vaal_ext.report.figures import draw_win_matrix
from vaal_ext.reproduce.figures import draw_losses, draw_updates
from vaal_ext.reproduce.plan import EXHIBITS
from vaal_ext.reproduce.radius import FRACTIONS, draw_radius
from vaal_ext.reproduce.sweeps import SweepRow, draw_sweep

RESULTS = ROOT / "benchmarks" / "results"
LEDGER = RESULTS / "pictures.csv"
NOT_REDRAWN: dict[str, str] = {}

Row = dict[str, str]


@dataclass(frozen=True)
class Picture:
    """A committed picture.

    Attributes:
        png, data: paths below the folder of results.
        title: what the drawing function takes for it.
        draw: draws the PNG `path` from the rows of the data: draw(path, rows, title).
        code: the function that `draw` leaves the drawing to.
    """

    png: str
    data: str
    title: str
    draw: Callable[[Path, list[Row], str], None]
    code: Callable[..., None]

    def entry(self, png: Path) -> Row:
        """Its line in the ledger, where `png` is what was drawn."""
        data = (RESULTS / self.data).read_text(encoding="utf-8")  # whatever ends its lines
        return {
            "picture": self.png,
            "png": _sum(png.read_bytes()),
            "data": _sum(f"{self.title}\n{data}".encode()),
            "code": _code_sum(self.code),
        }

    def redraw(self) -> None:
        with open(RESULTS / self.data, newline="", encoding="utf-8") as file:
            self.draw(RESULTS / self.png, list(csv.DictReader(file)), self.title)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@functools.cache
def _code_sum(draw: Callable[..., None]) -> str:
    """Of the files that draw, without the comments and blank lines, which change no picture."""
    files = [Path(canvas.__file__), Path(inspect.getsourcefile(draw)), Path(__file__)]
    lines = [line.strip() for file in files for line in file.read_text("utf-8").splitlines()]
    return _sum("\n".join(line for line in lines if line and line[0] != "#").encode())


def _curves(path: Path, rows: list[Row], title: str) -> None:
    """From statistics.csv: its rows of accuracies, a curve for each strategy."""
    curves = []
    for strategy, mine in _grouped(_alone(rows, "accuracy"), "strategy"):
        mean, low, high = (
            np.array([_number(row[column]) for row in mine]) for column in ("value", "low", "high")
        )
        labels, seeds = (np.array([int(row[column]) for row in mine]) for column in ("labels", "n"))
        none = np.full(len(mine), math.nan)
        curves.append(Curve(strategy, labels, seeds, mean, none, low, high, (math.nan, math.nan)))
    draw_learning_curves(path, curves, title)


def _wins(path: Path, rows: list[Row], title: str) -> None:
    """From statistics.csv: its rows of wins."""
    names = [name for name, _ in _grouped(_alone(rows, "accuracy"), "strategy")]
    wins = np.zeros((len(names), len(names)))
    for row in rows:
        if row["measure"] == "wins":
            wins[names.index(row["strategy"]), names.index(row["against"])] = float(row["value"])
    draw_win_matrix(path, names, wins, title)


def _alone(rows: list[Row], measure: str) -> list[Row]:
    return [row for row in rows if row["measure"] == measure and not row["against"]]


def _updates(path: Path, rows: list[Row], title: str) -> None:
    errors = {
        dataset: {
            strategy: np.array(
                [[float(row["test_error"]) for row in run] for _, run in _grouped(runs, "seed")]
            )
            for strategy, runs in _grouped(mine, "strategy")
        }
        for dataset, mine in _grouped(rows, "dataset")
    }
    draw_updates(path, errors, title)


def _losses(path: Path, rows: list[Row], title: str) -> None:
    columns = {
        "test loss": "test_loss", "training loss": "train_loss", "test accuracy": "test_accuracy"
    }  # fmt: skip
    panels = {
        variant: {
            name: np.array([float(row[column]) for row in mine]) for name, column in columns.items()
        }
        for variant, mine in _grouped(rows, "variant")
    }
    labels = np.unique([int(row["labels"]) for row in rows])
    draw_losses(path, panels, labels, title)


def _sweep(path: Path, rows: list[Row], title: str) -> None:
    numbers = ("val_area", "low", "high", "test_area")
    drawn = [
        SweepRow(row["variant"], *(_number(row[name]) for name in numbers), int(row["seeds"]))
        for row in rows
    ]
    draw_sweep(path, drawn, title)


def _radius(path: Path, rows: list[Row], title: str) -> None:
    areas = {
        dataset: np.array(
            [_number(row["roc_area"]) for row in mine]
        ).reshape(-1, len(FRACTIONS))
        for dataset, mine in _grouped(rows, "dataset")
    }  # fmt: skip
    draw_radius(path, areas, title)


def _speed(path: Path, rows: list[Row], title: str) -> None:
    draw_speed(path, rows, title)


def _number(text: str) -> float:
    return float(text) if text else math.nan


def _grouped(rows: list[Row], column: str) -> list[tuple[str, list[Row]]]:
    """The rows by what they have in a column, in the order in which that comes first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row[column], []).append(row)
    return list(found.items())


def pictures() -> Iterator[Picture]:
    """Every committed picture but those that cannot be redrawn."""
    yield Picture("speed.png", "ops_cpu.csv", "How many times as long as vaal_ext …", _speed, draw_speed)
    for table in sorted(RESULTS.glob("paper/*/statistics_*/statistics.csv")):
        folder = table.parent.relative_to(RESULTS)
        dataset = folder.name.removeprefix("statistics_")
        data = f"{folder}/statistics.csv"
        yield Picture(
            f"{folder}/win_matrix.png", data, f"{dataset}: which strategy is more accurate", _wins,
            draw_win_matrix,
        )  # fmt: skip
