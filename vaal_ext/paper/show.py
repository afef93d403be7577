"""From finished runs to the files of an exhibit: the figure or table, and the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vaal_ext.paper.figures import draw_contours, draw_losses, draw_updates, save_panels
from vaal_ext.paper.made_of import destination, of_results, write_made_of
from vaal_ext.paper.plan import Exhibit
from vaal_ext.paper.radius import FRACTIONS, draw_radius, error_ranking
from vaal_ext.paper.sweeps import draw_sweep, sweep_rows, write_sweep
from vaal_ext.paper.tables import markdown_table, table_cells, write_table
from vaal_ext.paper.toys import before_and_after, error_after_updates
from vaal_ext.paper.what_ldr_is import (
    BANDS,
    draw_roughness,
    save_pools,
    scored_pool,
    wrong_per_band,
)
from vaal_ext.paper.wording import caption, first_runs, instead, notes, seeds_shown
from vaal_ext.progress import progress_bar
from vaal_ext.report.comparison import compare
from vaal_ext.report.curve_figure import draw_learning_curves
from vaal_ext.report.curves import learning_curves, write_csv, write_runs, write_tables
from vaal_ext.report.run_page import write_run_page
from vaal_ext.report.runs import Run
from vaal_ext.report.write import write_comparison

__all__ = ["show"]

Results = dict[str, dict[str, list[Run]]]  # data set -> variant -> a run for each seed


def show(
    name: str, exhibit: Exhibit, results: Results, out: Path, *, replace: bool = False
) -> Iterator[str]:
    """Write the files of an exhibit into the folder `out`; lines to print.

    Files of an earlier call are replaced, each whole, unless they were made of more (seeds,
    queries, steps, pool, variants): then, without `replace`, the new ones go beside them, into
    `out`-smaller. Either folder gets a made_of.json, see :mod:`vaal_ext.paper.made_of`.
    Unfinished runs stand in curves and tables, which end where they end; whatever else there is
    shows finished runs alone.

    Raises:
        ValueError: there is no finished run for what needs one.
    """
    if exhibit.shows not in _OF_UNFINISHED_RUNS:
        results, left_out = _finished(results)
        if left_out:
            yield f"{len(left_out)} unfinished runs are left out ({left_out[0].folder})"
        if not results:
            raise ValueError(f"there is no finished run of {exhibit.title!r} yet")
    made = of_results(results)
    out, why = destination(out, made, replace=replace)
    if why is not None:
        yield why
    out.mkdir(parents=True, exist_ok=True)
    write_made_of(out, made)
    yield from _SHOW[exhibit.shows](name, exhibit, results, out)


def _finished(results: Results) -> tuple[Results, list[Run]]:
    """The finished runs of the results, and the others."""
    kept: Results = {}
    left_out = []
    for dataset, groups in results.items():
        for label, runs in groups.items():
            for run in runs:
                if run.finished:
                    kept.setdefault(dataset, {}).setdefault(label, []).append(run)
                else:
                    left_out.append(run)
    return kept, left_out


def _contours(name: str, exhibit: Exhibit, results: Results, out: Path) -> Iterator[str]:
    for groups in results.values():
        rows = [before_and_after(runs[0], label) for label, runs in groups.items()]
        path = out / f"{name}.png"
        draw_contours(path, rows, f"{exhibit.title}\n{caption(first_runs(groups))}")
        save_panels(path.with_suffix(".npz"), rows)
        yield f"{path}: p(y = 1 | x) before and after a query, {seeds_shown(groups)}"
        points = [
            (
                label,
                i,
                *panel.x[i].tolist(),
                int(panel.y[i]),
                i in panel.labelled,
                i in panel.queried,
            )
            for label, (panel, _) in zip(groups, rows, strict=True)
            for i in range(len(panel.x))
        ]
        header = ("strategy", "index", "x_1", "x_2", "label", "labelled_before", "queried")
        write_csv(out / f"{name}.csv", header, points)
        yield f"{out / name}.csv: its points; .npz: all that the picture is drawn from"


def _updates(name: str, exhibit: Exhibit, results: Results, out: Path) -> Iterator[str]:
    runs = [run for groups in results.values() for group in groups.values() for run in group]
    bar = progress_bar(runs, show=True, desc="training once more", unit="network")
    errors = {run.folder: error_after_updates(run) for run in bar}
    curves = {
        dataset: {
            label: np.array([errors[run.folder] for run in group])
            for label, group in groups.items()
        }
        for dataset, groups in results.items()
    }
    path = out / f"{name}.png"
    draw_updates(path, curves, f"{exhibit.title}\n{caption(*results.values())}")
    yield f"{path}: test error against updates"
    rows = [
        (dataset, label, group[seed].config["seed"], update + 1, round(float(error), 6))
        for dataset, groups in results.items()
        for label, group in groups.items()
        for seed, values in enumerate(curves[dataset][label])
        for update, error in enumerate(values)
    ]
    write_csv(out / f"{name}.csv", ("dataset", "strategy", "seed", "update", "test_error"), rows)
    yield f"{out / name}.csv: the same in numbers"
    for dataset, groups in results.items():
        yield from _statistics(dataset, groups, out)


def _curves(name: str, exhibit: Exhibit, results: Results, out: Path) -> Iterator[str]:
    for dataset, groups in results.items():
        path = out / f"{name}.png"
        curves = learning_curves(groups)
        shown = dataset + instead(groups, dataset)
        title = f"{shown}, {exhibit.title}"
        draw_learning_curves(path, curves, title, made_of=caption(groups))
        yield f"{path}: accuracy against labels"
        write_tables(curves, out)
        yield f"{out / 'accuracy.csv'}, {out / 'area.csv'}: the same in numbers"
        yield from _statistics(dataset, groups, out)


def _losses(name: str, exhibit: Exhibit, results: Results, out: Path) -> Iterator[str]:
    for dataset, groups in results.items():
        labels = next(iter(groups.values()))[0].labels
        panels = {
            label: {
                "test loss": np.mean([run.test_loss for run in runs], axis=0),
                "training loss": np.mean([run.train_loss for run in runs], axis=0),
                "test accuracy": np.mean([run.accuracy for run in runs], axis=0),
            }
            for label, runs in groups.items()
        }
        path = out / f"{name}.png"
        shown = dataset + instead(groups, dataset)
        title = f"{shown}: {exhibit.title}\n{caption(groups)}"
        draw_losses(path, panels, labels, title)
        yield f"{path}: losses and accuracy against labels"
        rows = [
            (label, int(labels[i]), *(round(float(values[i]), 6) for values in columns.values()))
            for label, columns in panels.items()
            for i in range(len(labels))
        ]
        header = ("variant", "labels", "test_loss", "train_loss", "test_accuracy")
        write_csv(out / f"{name}.csv", header, rows)
        yield f"{out / name}.csv: the same in numbers"
        yield from _statistics(dataset, groups, out)


def _table(name: str, exhibit: Exhibit, results: Results, out: Path) -> Iterator[str]:
    for dataset, groups in results.items():
        stem = name if len(results) == 1 else f"{name}_{dataset}"
        curves = learning_curves(groups)
        shown = dataset + instead(groups, dataset)
        draw_learning_curves(out / f"{stem}.png", curves, shown, made_of=caption(groups))
        yield f"{out / stem}.png: accuracy against labels, as in the paper's Fig. 8"
        cells = table_cells(groups, dataset)
        title = exhibit.title if len(results) == 1 else f"{exhibit.title}: {dataset}"
        title += instead(groups, dataset)
        printed = any(not math.isnan(cell.paper) for cell in cells)
        text = markdown_table(cells, title, notes(groups, dataset, printed))
        write_table(cells, text, out / stem)
        yield text
        yield from _statistics(dataset, groups, out)


def _sweep(name: str, exhibit: Exhibit, results: Results, out: Path) -> Iterator[str]:
    for dataset, groups in results.items():
        rows = sweep_rows(groups)
        stem = out / f"{name}_{dataset}"
        write_sweep(stem.with_suffix(".csv"), rows)
        title = f"{dataset}: {exhibit.title}\n{caption(groups)}"
        draw_sweep(stem.with_suffix(".png"), rows, title)
        for row in rows:
            interval = "" if np.isnan(row.low) else f" [{row.low:.2f}, {row.high:.2f}]"
            yield f"{dataset}  {row.variant:<34} {row.val:.2f}{interval}  (test {row.test:.2f})"
        yield f"{stem}.csv, {stem}.png: area under the budget curve on the validation set"


def _roughness(name: str, exhibit: Exhibit, results: Results, out: Path) -> Iterator[str]:
    for dataset, groups in results.items():
        pools = {label: scored_pool(runs[0]) for label, runs in groups.items()}
        stem = out / f"{name}_{dataset}"
        title = f"{dataset}: {exhibit.title}\n{caption(first_runs(groups))}"
        draw_roughness(stem.with_suffix(".png"), pools, title)
        save_pools(stem.with_suffix(".npz"), pools)
        yield (
            f"{stem}.png: LDR beside entropy, margin and the error of the pseudo labels, "
            f"{seeds_shown(groups)}"
        )
        rows = [
            (label, score, low, high, round(float(share), 5))
            for label, pool in pools.items()
            for score, values in (
                ("ldr", pool.ldr), ("entropy", pool.entropy), ("margin", -pool.margin)
            )
            for low, high, share in zip(
                BANDS[:-1], BANDS[1:], wrong_per_band(values, pool.wrong), strict=True
            )
        ]  # fmt: skip
        header = ("variant", "score", "rank_above", "rank_to", "wrong_pseudo_labels")
        write_csv(stem.with_suffix(".csv"), header, rows)
        yield (
            f"{stem}.csv: wrong pseudo labels in each percentile band; .npz: all that the picture "
            "is drawn from"
        )


def _radius(name: str, exhibit: Exhibit, results: Results, out: Path) -> Iterator[str]:
    rows, areas = [], {}
    for dataset, groups in results.items():
        found = []
        for runs in groups.values():
            for run in progress_bar(runs, show=True, desc=dataset, unit="network"):
                length, area = error_ranking(run)
                found.append(area)
                rows += [
                    (dataset, run.config["seed"], round(length, 4), f, round(f * length, 5), value)
                    for f, value in zip(FRACTIONS, area.round(4).tolist(), strict=True)
                ]
        areas[dataset] = np.array(found)
    header = ("dataset", "seed", "rms_length", "fraction", "eps", "roc_area")
    write_csv(out / f"{name}.csv", header, rows)
    title = f"{exhibit.title}\n{caption(*results.values())}"
    draw_radius(out / f"{name}.png", areas, title)
    yield f"{out / name}.csv, {out / name}.png: how well LDR finds wrong pseudo labels"


def _statistics(dataset: str, groups: dict[str, list[Run]], out: Path) -> Iterator[str]:
    """Every run, and every strategy against random and entropy, into a folder of the data set's."""
    folder = out / f"statistics_{dataset}"
    folder.mkdir(exist_ok=True)
    write_runs(groups, folder / "runs.csv")
    yield f"{folder / 'runs.csv'}: every round of every run"
    comparison = compare(groups)
    yield from write_comparison(comparison, dataset, folder)
    curves = learning_curves(groups)
    yield write_run_page(folder / "report.html", groups, curves, comparison, dataset)


_OF_UNFINISHED_RUNS = ("curves", "table")

_SHOW: dict[str, Callable[[str, Exhibit, Results, Path], Iterator[str]]] = {
    "contours": _contours,
    "updates": _updates,
    "curves": _curves,
    "losses": _losses,
    "table": _table,
    "sweep": _sweep,
    "roughness": _roughness,
    "radius": _radius,
}
