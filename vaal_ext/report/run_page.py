"""report.html: what a comparison of runs has come to, as one page to look at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vaal_ext.experiment.status import counted
from vaal_ext.report.charts import curve_chart, histogram_chart
from vaal_ext.report.comparison import Comparison
from vaal_ext.report.curve_figure import MOST_BANDS, draw_learning_curves
from vaal_ext.report.curves import Curve
from vaal_ext.report.figures import draw_ldr_histogram
from vaal_ext.report.histogram import ldr_bins, scored_query
from vaal_ext.report.page import Page, Section
from vaal_ext.report.queried import NoImagesError, QueriedImage, queried_images
from vaal_ext.report.runs import Run
from vaal_ext.report.settings import described_settings
from vaal_ext.report.tables import (
    HOW_TO_READ,
    HOW_TO_READ_WINS,
    caveats,
    sentence,
    strategy_lines,
    win_lines,
)

__all__ = ["image_tiles", "write_run_page"]

# Of each group's first run the page shows so many images of so many queries, evenly spaced.
_IMAGES, _QUERIES = 12, 6


def write_run_page(
    path: Path,
    groups: dict[str, list[Run]],
    curves: Sequence[Curve],
    comparison: Comparison,
    dataset: str,
) -> str:
    """The page of these groups of runs to the HTML file `path`; the line that says so.

    Args:
        groups: as :func:`vaal_ext.report.runs.group_runs` gives them.
        curves, comparison: made of them.
        dataset: its name.

    Raises:
        ValueError: a damaged folder of a run. OSError: the file cannot be written.
    """
    runs = [run for group in groups.values() for run in group]
    unfinished = sum(not run.finished for run in runs)
    about = (
        f"{counted(len(groups), 'strategy', 'strategies')} on {dataset}, "
        f"{counted(len(runs), 'run')}"
        + (f", {unfinished} of them unfinished: what they have come to is shown" * bool(unfinished))
        + ". Accuracy is that on the test set. This page is one file and asks the network for "
        "nothing."
    )
    sections = [
        _learning_curves(curves, dataset),
        _statistics(comparison),
        _histograms(groups),
        _images(groups),
        described_settings(groups),
    ]
    return Page(f"Active learning on {dataset}", about, sections).write(
        path, "all of this as a page"
    )


def _learning_curves(curves: Sequence[Curve], dataset: str) -> Section:
    section = Section("Learning curves")
    last = [
        f"{curve.name} {100 * curve.mean[-1]:.1f} % at {curve.labels[-1]} labels"
        for curve in curves
    ]
    band = "the band is its 95% bootstrap interval"
    if len(curves) > MOST_BANDS:
        band = (
            "its 95% bootstrap interval stands in brackets, as so many bands would hide each other"
        )
    section.chart(
        partial(curve_chart, curves),
        partial(draw_learning_curves, curves=curves, dataset=dataset),
        f"Learning curves on {dataset}: test accuracy against the number of labels. At their "
        f"ends: {'; '.join(last)}. The table below holds every point.",
        f"Mean over the seeds; {band}. A click on a name hides or "
        "shows its curve, a double click shows it alone; a value stands beside the mouse.",
    )
    if max(int(curve.runs.max()) for curve in curves) == 1:
        section.missing("There is one seed: how far others would lie from it is not known.")
    lines = [["strategy", "labels", "seeds", "accuracy [%]", "standard deviation", "interval"]]
    for curve in curves:
        for i, labels in enumerate(curve.labels.tolist()):
            low, high = _percent(curve.low[i]), _percent(curve.high[i])
            lines.append(
                [
                    curve.name, str(labels), str(curve.runs[i]), _percent(curve.mean[i]),
                    _percent(curve.std[i]), f"{low} to {high}" if low else "",
                ]
            )  # fmt: skip
    section.table("The points of these curves", lines, folded=True)
    return section


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.2f}"


def _statistics(comparison: Comparison) -> Section:
    section = Section("Statistics")
    if not comparison.measurements:
        section.missing(sentence(comparison.subset))
        return section
    section.text(sentence(comparison.subset))
    section.table("Each strategy, the best on top", strategy_lines(comparison))
    section.text(f"A click on the head of a column sorts by it. {HOW_TO_READ}")
    for note in caveats(comparison):
        section.missing(sentence(note))
    if comparison.wins is None:
        section.missing("Nothing to win: there is one strategy, or no query that all have made.")
    else:
        section.table("Which is more accurate", win_lines(comparison.names, comparison.wins))
        section.text(HOW_TO_READ_WINS)
    return section


def _histograms(groups: dict[str, list[Run]]) -> Section:
    section = Section("Local Distributional Roughness")
    without = []
    for name, (run, *_) in groups.items():
        scores = run.scores()
        if scores is None:
            without.append(name)
            continue
        query = scored_query(run, scores)
        bins = ldr_bins(query.ldr, query.queried, query.percentile)
        title = f"{name}, seed {run.config['seed']}: the pool at query {query.number}"
        section.heading(title)
        below, left, chosen = map(len, bins.groups)
        section.chart(
            partial(histogram_chart, bins, query.percentile),
            partial(
                draw_ldr_histogram,
                ldr=query.ldr,
                queried=query.queried,
                percentile=query.percentile,
                title=title,
            ),
            f"Histogram of the LDR of the pool, {title}. Below the threshold of "
            f"{bins.threshold:.3g} nats: {below} samples; candidates left: {left}; queried: "
            f"{chosen}.",
            "The threshold is the smallest LDR of a candidate. The axis is logarithmic; what is "
            "below 1e-12 stands leftmost."
            + f" The screen left {bins.left_out:,} samples out."
            * bool(bins.left_out),
        )
    if without:
        section.missing(
            f"No scores are kept for {', '.join(without)}: these strategies compute no LDR, or "
            "have not queried yet."
        )
    return section


def _images(groups: dict[str, list[Run]]) -> Section:
    section = Section("What was asked for")
    found, missing = {}, []
    for name, (run, *_) in groups.items():
        try:
            found[name] = queried_images(run, _QUERIES, _IMAGES)
        except NoImagesError as error:
            missing.append(f"No images for {name}: {error}.")
    if found:
        section.text(
            f"The first {_IMAGES} images of up to {_QUERIES} queries, of each strategy's first "
            "run. Below each its label; in red, the network's guess → the label, where they differ."
        )
    for name, queries in found.items():
        for number, images in queries.items():
            section.heading(f"{name}, seed {groups[name][0].config['seed']}: query {number}")
            section.images(image_tiles(images))
    for text in missing:
        section.missing(text)
    return section


def image_tiles(images: Sequence[QueriedImage]) -> list[tuple[np.ndarray, str, str, bool]]:
    """As :meth:`vaal_ext.report.page.Section.images` takes them."""
    tiles = []
    for image in images:
        label = f"label {image.label}" if image.label else "no label yet"
        alt = f"{image.name}: {label}" + (f", guess {image.guess}" if image.guess else "")
        caption = f"{image.guess} → {image.label}" if image.wrong else image.label
        tiles.append((image.pixels, alt, caption, image.wrong))
    return tiles
