"""`vaal-ext report`: from run folders to tables and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vaal_ext.pool.scores import PoolScores
from vaal_ext.report.comparison import Comparison, compare
from vaal_ext.report.curve_figure import draw_learning_curves
from vaal_ext.report.curves import accuracy_table, learning_curves, write_tables
from vaal_ext.report.figures import (
    Thumbnail,
    draw_contact_sheet,
    draw_ldr_histogram,
    draw_win_matrix,
    win_matrix_title,
)
from vaal_ext.report.histogram import scored_query
from vaal_ext.report.queried import NoImagesError, queried_images
from vaal_ext.report.run_page import write_run_page
from vaal_ext.report.runs import Run, group_runs, load_run
from vaal_ext.report.tables import caveats, strategy_table, write_statistics

__all__ = ["write_comparison", "write_report"]

# A contact sheet shows this many images of a query and, evenly spaced, this many queries.
_SHEET_COLUMNS = 20
_SHEET_ROWS = 10


def _histogram(run: Run, scores: PoolScores, name: str, path: Path) -> str:
    """Draw the LDR of the pool that a run's last query chose from; the line that says so."""
    query = scored_query(run, scores)
    draw_ldr_histogram(
        path,
        query.ldr,
        query.queried,
        query.percentile,
        f"{run.config['dataset']}: LDR of the pool at query {query.number} ({name}, "
        f"seed {run.config['seed']})",
    )
    return f"{path}: LDR of the pool at query {query.number}"


def _contact_sheet(run: Run, name: str, path: Path) -> str:
    """Draw the images a run has queried, a row for each query; the line that says so."""
    try:
        queries = queried_images(run, _SHEET_ROWS, _SHEET_COLUMNS)
    except NoImagesError as error:
        return f"no contact sheet for {name}: {error}"
    rows = [
        (
            f"query {number}",
            [
                Thumbnail(
                    image.pixels,
                    f"{image.guess}\u2192{image.label}" if image.wrong else image.label,
                    image.wrong,
                )
                for image in images
            ],
        )
        for number, images in queries.items()
    ]
    guessed = any(image.guess for images in queries.values() for image in images)
    draw_contact_sheet(
        path,
        rows,
        f"{run.config['dataset']}: what {name} asked for (seed {run.config['seed']})",
        "above each image its label"
        + ("; red: the network's guess \u2192 the label" if guessed else ""),
    )
    return f"{path}: the first {_SHEET_COLUMNS} images of each query"


def write_comparison(comparison: Comparison, dataset: str, out: Path) -> Iterator[str]:
    """Groups of runs compared seed by seed, into the folder `out`; lines to print.

    It gets statistics.csv, statistics.md and win_matrix.png, or loses those of an earlier call
    where the groups have no seeds or numbers of labels in common.
    """
    yield comparison.subset
    if not comparison.measurements:
        for name in ("statistics.csv", "statistics.md", "win_matrix.png"):
            (out / name).unlink(missing_ok=True)  # an earlier report's, on other runs
        return
    yield strategy_table(comparison)
    yield from caveats(comparison)
    write_statistics(comparison, dataset, out)
    yield f"{out / 'statistics.csv'}, {out / 'statistics.md'}: every number, and how to read them"
    if comparison.wins is not None:
        path = out / "win_matrix.png"
        labels = comparison.labels.tolist()
        title = win_matrix_title(dataset, len(comparison.seeds), labels)
        draw_win_matrix(path, comparison.names, comparison.wins, title)
        yield f"{path}: how often each strategy beats each other one"


def write_report(folders: Sequence[Path], out: Path) -> Iterator[str]:
    """Compare runs of one data set: tables and pictures into the folder `out`, lines to print.

    `out` gets accuracy.csv (a row for each group and number of labels), area.csv,
    learning_curves.png; statistics.csv, statistics.md and win_matrix.png where the groups have
    seeds and numbers of labels in common; and, for the first run of each group of seeds,
    ldr_NAME.png (where LDR was computed) and queried_NAME.png (where the samples are images).
    report.html has all of it on one page. Files of an earlier report are replaced, each whole.

    Raises:
        ValueError: a folder that is no run, runs of different data sets, the same run twice.
        OSError: a file that cannot be read or written.
    """
    runs = [load_run(folder) for folder in folders]
    groups = group_runs(runs)
    dataset, curves = str(runs[0].config["dataset"]), learning_curves(groups)
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        if not run.finished:
            done, wanted = len(run.labels) - 1, run.config["rounds"]
            yield f"{run.folder} is unfinished: {done} of {wanted} queries; shown is what it has"
    yield accuracy_table(curves)
    yield (
        "(mean and standard deviation over seeds; area: the mean accuracy between the first and "
        "the last number of labels that all these runs have)"
    )
    write_tables(curves, out)
    yield f"{out / 'accuracy.csv'}, {out / 'area.csv'}: the tables in full"
    path = out / "learning_curves.png"
    draw_learning_curves(path, curves, dataset)
    yield f"{path}: accuracy against labels"
    comparison = compare(groups)
    yield from write_comparison(comparison, dataset, out)
    for name, group in groups.items():
        slug = re.sub(r"[^A-Za-z0-9.=-]+", "_", name).strip("_")
        scores = group[0].scores()
        if scores is not None:
            yield _histogram(group[0], scores, name, out / f"ldr_{slug}.png")
        yield _contact_sheet(group[0], name, out / f"queried_{slug}.png")
    yield write_run_page(out / "report.html", groups, curves, comparison, dataset)
