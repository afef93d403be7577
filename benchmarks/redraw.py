"""Redraws the committed pictures that are older than their data or than the code that draws them.

    python benchmarks/redraw.py

Every picture is drawn from a file beside it, and says what runs it was made of, as far as the file,
or the table beside it, holds that. What it was drawn from, by which code, and what came
out stand in benchmarks/results/pictures.csv as SHA-256 sums; a test compares them. The sums are of
files in the repository, so they are the same on every machine, whatever its fonts would make of a
picture.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import inspect
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from accuracy_plot import draw_accuracy
from query_plot import draw_queries
from readme import ROOT
from speed_plot import draw_speed

from vaal_ext.experiment.status import counted
from vaal_ext.paper.figures import draw_contours, draw_losses, draw_updates, load_panels
from vaal_ext.paper.made_of import seeds_text
from vaal_ext.paper.plan import EXHIBITS
from vaal_ext.paper.radius import FRACTIONS, draw_radius
from vaal_ext.paper.sweeps import SweepRow, draw_sweep
from vaal_ext.paper.what_ldr_is import draw_roughness, load_pools
from vaal_ext.report import canvas
from vaal_ext.report.curve_figure import draw_learning_curves
from vaal_ext.report.curves import Curve, write_csv
from vaal_ext.report.figures import draw_win_matrix, win_matrix_title

RESULTS = ROOT / "benchmarks" / "results"
LEDGER = "pictures.csv"

Row = dict[str, str]


@dataclass(frozen=True)
class Picture:
    """A committed picture.

    Attributes:
        png, data: paths below the folder of results.
        title: what the drawing function takes for it.
        draw: draws the PNG `path` from the file of data: draw(path, data, title).
        code: the function that `draw` leaves the drawing to.
    """

    png: str
    data: str
    title: str
    draw: Callable[[Path, Path, str], None]
    code: Callable[..., None]

    def entry(self, results: Path) -> Row:
        """Its line in the ledger, were it up to date; no sum of a picture that is not there."""
        data, png = results / self.data, results / self.png
        content = data.read_bytes() if data.suffix == ".npz" else _text(data)
        return {
            "picture": self.png,
            "drawn": _sum(png.read_bytes()) if png.exists() else "",
            "data": _sum(self.title.encode() + content),
            "code": _code_sum(self.code),
        }


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _text(path: Path) -> bytes:
    return path.read_text(encoding="utf-8").encode()  # whatever ends its lines


@functools.cache
def _code_sum(draw: Callable[..., None]) -> str:
    """Of the files that draw, without the comments and blank lines, which change no picture."""
    files = [Path(canvas.__file__), Path(inspect.getfile(draw)), Path(__file__)]
    lines = [line.strip() for file in files for line in file.read_text("utf-8").splitlines()]
    return _sum("\n".join(line for line in lines if line and line[0] != "#").encode())


def _read(path: Path) -> list[Row]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _curves(path: Path, data: Path, title: str) -> None:
    """From the accuracies of statistics.csv; the title is "DATA SET|what it was made of"."""
    curves = []
    for strategy, mine in _grouped(_accuracies(_read(data)), "strategy"):
        mean, low, high = (
            np.array([_number(row[column]) for row in mine]) for column in ("value", "low", "high")
        )
        labels, seeds = (np.array([int(row[column]) for row in mine]) for column in ("labels", "n"))
        none = np.full(len(mine), math.nan)
        curves.append(Curve(strategy, labels, seeds, mean, none, low, high, (math.nan, math.nan)))
    dataset, _, made_of = title.partition("|")
    draw_learning_curves(path, curves, dataset, made_of=made_of)


def _wins(path: Path, data: Path, title: str) -> None:
    """From the wins of statistics.csv."""
    rows = _read(data)
    names = [name for name, _ in _grouped(_accuracies(rows), "strategy")]
    wins = np.zeros((len(names), len(names)))
    for row in rows:
        if row["measure"] == "wins":
            wins[names.index(row["strategy"]), names.index(row["against"])] = float(row["value"])
    draw_win_matrix(path, names, wins, title)


def _accuracies(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["measure"] == "accuracy" and not row["against"]]


def _updates(path: Path, data: Path, title: str) -> None:
    errors = {
        dataset: {
            strategy: np.array(
                [[float(row["test_error"]) for row in run] for _, run in _grouped(runs, "seed")]
            )
            for strategy, runs in _grouped(mine, "strategy")
        }
        for dataset, mine in _grouped(_read(data), "dataset")
    }
    draw_updates(path, errors, title)


def _losses(path: Path, data: Path, title: str) -> None:
    columns = {
        "test loss": "test_loss", "training loss": "train_loss", "test accuracy": "test_accuracy"
    }  # fmt: skip
    rows = _read(data)
    panels = {
        variant: {
            name: np.array([float(row[column]) for row in mine]) for name, column in columns.items()
        }
        for variant, mine in _grouped(rows, "variant")
    }
    draw_losses(path, panels, np.unique([int(row["labels"]) for row in rows]), title)


def _sweep(path: Path, data: Path, title: str) -> None:
    numbers = ("val_area", "low", "high", "test_area")
    rows = [
        SweepRow(row["variant"], *(_number(row[name]) for name in numbers), int(row["seeds"]))
        for row in _read(data)
    ]
    draw_sweep(path, rows, title)


def _radius(path: Path, data: Path, title: str) -> None:
    areas = {
        dataset: np.reshape([_number(row["roc_area"]) for row in mine], (-1, len(FRACTIONS)))
        for dataset, mine in _grouped(_read(data), "dataset")
    }
    draw_radius(path, areas, title)


def _contours(path: Path, data: Path, title: str) -> None:
    draw_contours(path, load_panels(data), title)


def _roughness(path: Path, data: Path, title: str) -> None:
    draw_roughness(path, load_pools(data), title)


def _speed(path: Path, data: Path, title: str) -> None:
    draw_speed(path, _read(data), title)


def _accuracy(path: Path, data: Path, title: str) -> None:
    draw_accuracy(path, _read(data), title)


def _queries_found(path: Path, data: Path, title: str) -> None:
    draw_queries(path, _read(data), title)


def _seeds_and_labels(statistics: list[Row]) -> tuple[int, list[int]]:
    """Of the rows of statistics.csv: how many seeds were compared, at which numbers of labels."""
    rows = _accuracies(statistics)
    return max(int(row["n"]) for row in rows), sorted({int(row["labels"]) for row in rows})


def _queries(labels: list[int]) -> str:
    """ "10 queries of 100" of the numbers of labels of all rounds."""
    return f"{counted(len(labels) - 1, 'query', 'queries')} of {labels[1] - labels[0]}"


def _of_statistics(data: Path) -> str:
    seeds, labels = _seeds_and_labels(_read(data))
    return f"{counted(seeds, 'seed')}, {_queries(labels)}"


def _of_panels(data: Path) -> str:
    panel = load_panels(data)[0][0]  # before the query
    queried, pool = len(panel.queried), len(panel.x)
    return f"1 seed, 1 query of {queried} after {len(panel.labelled)} labels, a pool of {pool}"


def _of_pools(data: Path) -> str:
    sizes = {len(pool.ldr) for pool in load_pools(data).values()}
    return f"1 seed, {' to '.join(f'{size:,}' for size in sorted(sizes))} samples scored"


def _of_losses(data: Path) -> str:
    labels = sorted({int(row["labels"]) for row in _read(data)})
    return f"1 seed, {_queries(labels)} from {_SMALL_POOL}"


def _of_updates(data: Path) -> str:
    rows = _read(data)
    return f"{_of_seeds(data)}, {max(int(row['update']) for row in rows)} steps a training"


def _of_seeds(data: Path) -> str:
    """Of a table with a seed in each row, whose data sets may have more or fewer."""
    return seeds_text(len(_grouped(rows, "seed")) for _, rows in _grouped(_read(data), "dataset"))


def _of_variants(data: Path) -> str:
    return seeds_text(int(row["seeds"]) for row in _read(data))


def _number(text: str) -> float:
    return float(text) if text else math.nan


def _grouped(rows: list[Row], column: str) -> list[tuple[str, list[Row]]]:
    """The rows by what they have in a column, in the order in which that comes first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row[column], []).append(row)
    return list(found.items())


_SPEED = "How many times as long as vaal_ext each opponent takes (float32, one thread)"
_QUERIES = "What a query costs and what it finds (percentile 90, 100 picks, one thread)"
_ACCURACY = "Error of the gradient of J by rounding\nline: median row; band: up to the worst"
# Learning curves: folder below paper/, the picture's name there.
_LEARNING_CURVES = (
    ("digits", "digits"), ("digits-paper-vat", "digits"), ("fashion", "fashion"),
    ("fig6", "fig6"), ("fig7", "fig7"), ("fig10", "fig10"), ("table2", "table2"),
    ("table2-1000-steps", "table2"), ("table2-random-vaal", "table2"),
    ("table2-six-seeds", "table2"), ("table4", "table4"), ("toys", "toys_circles"),
    ("toys", "toys_moons"),
)  # fmt: skip
_SMALL_POOL = "10,000 samples of the pool"  # as RESULTS.md says: no table of these does
# Other pictures below paper/ whose data have their name: folder, data set or "", ending, drawn by,
# and what says what they were made of, as far as the data hold it.
_Draw, _Says = Callable[[Path, Path, str], None], Callable[[Path], str]
_OTHERS: tuple[tuple[str, str, str, _Draw, Callable[..., None], _Says], ...]
_OTHERS = (
    ("fig3", "", "npz", _contours, draw_contours, _of_panels),
    ("fig4", "", "npz", _contours, draw_contours, _of_panels),
    ("fig5", "", "csv", _updates, draw_updates, _of_updates),
    ("fig9", "", "csv", _losses, draw_losses, _of_losses),
    ("radius", "", "csv", _radius, draw_radius, _of_seeds),
    ("radius-mnist", "", "csv", _radius, draw_radius, _of_seeds),
    ("radius-fashion", "", "csv", _radius, draw_radius, _of_seeds),
    ("radius-cifar10", "", "csv", _radius, draw_radius, _of_seeds),
    ("search-digits", "digits", "csv", _sweep, draw_sweep, _of_variants),
    ("vat-toys", "circles", "csv", _sweep, draw_sweep, _of_variants),
    ("vat-toys", "moons", "csv", _sweep, draw_sweep, _of_variants),
    ("what-ldr-is", "digits", "npz", _roughness, draw_roughness, _of_pools),
    ("what-ldr-is-mnist", "mnist", "npz", _roughness, draw_roughness, _of_pools),
)


def pictures(results: Path) -> Iterator[Picture]:
    """Every picture in the folder of results."""
    yield Picture("speed.png", "ops_cpu.csv", _SPEED, _speed, draw_speed)
    yield Picture("query.png", "query_cpu.csv", _QUERIES, _queries_found, draw_queries)
    yield Picture("accuracy.png", "accuracy_cpu.csv", _ACCURACY, _accuracy, draw_accuracy)
    title = f"digits|{_of_statistics(results / 'digits.csv')}"
    yield Picture("digits.png", "digits.csv", title, _curves, draw_learning_curves)
    for folder, name in _LEARNING_CURVES:
        yield _learning_curve(results, f"paper/{folder}", name)
    for table in sorted(results.glob("paper/*/statistics_*/statistics.csv")):
        folder = table.parent.relative_to(results).as_posix()
        title = win_matrix_title(folder.rpartition("_")[2], *_seeds_and_labels(_read(table)))
        data, png = f"{folder}/{table.name}", f"{folder}/win_matrix.png"
        yield Picture(png, data, title, _wins, draw_win_matrix)
    for folder, dataset, ending, draw, code, says in _OTHERS:
        stem, title = f"paper/{folder}/{folder}", EXHIBITS[folder].title
        if dataset:
            stem, title = f"{stem}_{dataset}", f"{dataset}: {title}"
        if folder == "fig9":
            title = f"mnist: {title}"
        data = f"{stem}.{ending}"
        title += f"\n{says(results / data)}"
        yield Picture(f"{stem}.png", data, title, draw, code)


def _learning_curve(results: Path, folder: str, name: str) -> Picture:
    """Of a table, whose Markdown says what it was made of, or of a figure of the paper."""
    exhibit, _, dataset = name.partition("_")
    if not dataset:
        (dataset,) = EXHIBITS[exhibit].datasets
    data = f"{folder}/statistics_{dataset}/statistics.csv"
    note, title = results / folder / f"{name}.md", dataset
    if note.exists():
        kind, made_of = re.search(
            r" Data: ([^;]*); (.*?)\.$", note.read_text("utf-8"), re.M
        ).groups()
        if kind == "folder":
            title += ", saved as images"
    else:
        title = f"{dataset}, {EXHIBITS[exhibit].title}"
        made_of = f"{_of_statistics(results / data)} from {_SMALL_POOL}"
    return Picture(
        f"{folder}/{name}.png", data, f"{title}|{made_of}", _curves, draw_learning_curves
    )


def outdated(results: Path) -> list[Picture]:
    """The pictures whose line in the ledger is not what it would be now, or that have none."""
    ledger = results / LEDGER
    known = _read(ledger) if ledger.exists() else []
    return [picture for picture in pictures(results) if picture.entry(results) not in known]


def main() -> None:
    for picture in outdated(RESULTS):
        picture.draw(RESULTS / picture.png, RESULTS / picture.data, picture.title)
        print(picture.png)
    entries = sorted(
        (picture.entry(RESULTS) for picture in pictures(RESULTS)), key=itemgetter("picture")
    )
    write_csv(RESULTS / LEDGER, list(entries[0]), [list(entry.values()) for entry in entries])


if __name__ == "__main__":
    main()
