"""`vaal-ext report`: from run folders to tables and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vaal_ext.pool.scores import PoolScores
from vaal_ext.report.comparison import compare
from vaal_ext.report.curve_figure import draw_learning_curves
from vaal_ext.report.curves import accuracy_table, learning_curves, write_tables
from vaal_ext.report.figures import (
    Thumbnail,
    draw_contact_sheet,
    draw_ldr_histogram,
    draw_win_matrix,
    win_matrix_title,
)
from vaal_ext.report.runs import Run, group_runs, load_run
from vaal_ext.report.tables import caveats, strategy_table, write_statistics

__all__ = ["write_comparison", "write_report"]

# A contact sheet shows this many images of a query and, evenly spaced, this many queries.
_SHEET_COLUMNS = 20
_SHEET_ROWS = 10


def _histogram(run: Run, scores: PoolScores, name: str, path: Path) -> str:
    """Draw the LDR of the pool that a run's last query chose from; the line that says so."""
    scored = ~np.isnan(scores.ldr)
    number, query = list(run.queries().items())[-1]
    queried = np.isin(scores.index, [index for index, _ in query])
    if not queried.any():  # the run was stopped between these scores and the query made from them
        number += 1
    draw_ldr_histogram(
        path,
        scores.ldr[scored],
        queried[scored],
        run.percentile_of_query(number, len(scores.ldr)),
        f"{run.config['dataset']}: LDR of the pool at query {number} ({name}, "
        f"seed {run.config['seed']})",
    )
    return f"{path}: LDR of the pool at query {number}"


def _contact_sheet(run: Run, name: str, path: Path) -> str:
    """Draw the images a run has queried, a row for each query; the line that says so."""
    queries = run.queries()
    queries.pop(0, None)  # the initial set, which no strategy chose
    if not queries:
        return f"no contact sheet for {name}: nothing is queried yet"
    try:
        data = run.load_data()
    except (OSError, ValueError) as error:  # the run may come from another machine
        return f"no contact sheet for {name}: {error}"
    samples = data.train_x
    queries = run.queries(len(samples))  # once more, now that the size of the pool is known
    queries.pop(0)
    if samples.ndim != 4 or samples.shape[1] not in (1, 3):
        return f"no contact sheet for {name}: its samples are not images"
    low, high = float(samples.min()), float(samples.max())
    numbers = list(queries)
    picked = np.unique(np.linspace(0, len(numbers) - 1, _SHEET_ROWS).round().astype(int))
    rows, guessed = [], False
    for number in (numbers[i] for i in picked):
        images = []
        for index, guess in queries[number][:_SHEET_COLUMNS]:
            pixels = (samples[index].numpy() - low) / max(high - low, 1e-12)
            pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
            label = str(int(data.train_y[index]))
            wrong = guess not in ("", label)
            guessed |= guess != ""
            images.append(Thumbnail(pixels, f"{guess}\u2192{label}" if wrong else label, wrong))
        rows.append((f"query {number}", images))
    draw_contact_sheet(
        path,
        rows,
        f"{run.config['dataset']}: what {name} asked for (seed {run.config['seed']})",
        "above each image its label"
        + ("; red: the network's guess \u2192 the label" if guessed else ""),
    )
    return f"{path}: the first {_SHEET_COLUMNS} images of each query"


def write_comparison(groups: dict[str, list[Run]], dataset: str, out: Path) -> Iterator[str]:
    """The groups compared seed by seed, into the folder `out`; lines to print.

    It gets statistics.csv, statistics.md and win_matrix.png, or loses those of an earlier call
    where the groups have no seeds or numbers of labels in common.
    """
    comparison = compare(groups)
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
    Files of an earlier report are replaced, each whole.

    Raises:
        ValueError: a folder that is no run, runs of different data sets, the same run twice.
        OSError: a file that cannot be read or written.
    """
    runs = [load_run(folder) for folder in folders]
    groups = group_runs(runs)
    curves = learning_curves(groups)
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
    draw_learning_curves(path, curves, runs[0].config["dataset"])
    yield f"{path}: accuracy against labels"
    yield from write_comparison(groups, runs[0].config["dataset"], out)
    for name, group in groups.items():
        slug = re.sub(r"[^A-Za-z0-9.=-]+", "_", name).strip("_")
        scores = group[0].scores()
        if scores is not None:
            yield _histogram(group[0], scores, name, out / f"ldr_{slug}.png")
        yield _contact_sheet(group[0], name, out / f"queried_{slug}.png")
