"""report.html of a project: how good its networks are, what was asked for, and its settings.

Of an image without an answer it shows no guess: that would sway whoever is to answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaal_ext.experiment.provenance import versions
from vaal_ext.experiment.status import counted
from vaal_ext.labelling.config import SKIP
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.project import Project
from vaal_ext.labelling.tables import Training
from vaal_ext.labelling.wording import FEWEST, accuracy_interval, described, standing
from vaal_ext.report.canvas import new_figure, write_figure
from vaal_ext.report.page import Page, Section
from vaal_ext.report.queried import QueriedImage, evenly_spaced
from vaal_ext.report.run_page import image_tiles
from vaal_ext.report.tables import sentence

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["write_project_page"]

# The page shows so many images of so many queries, evenly spaced; each has to be decoded.
_IMAGES, _QUERIES = 20, 6


def write_project_page(project: Project, images: ImageFiles) -> str:
    """Write the project's report.html; the line that says so.

    Raises:
        ValueError: a damaged project. OSError: the file cannot be written.
    """
    path, asked = project.path / "report.html", project.asked()
    about = (
        f"{counted(len(images), 'image')} of {', '.join(project.config.classes)}. "
        f"{sentence(standing(project, asked))} This page is one file and asks the network for "
        "nothing."
    )
    scores = Section("Local Distributional Roughness")
    scores.missing(
        "A project keeps the scores of the images it asked for (the table above), not those of the "
        "whole pool: there is no histogram. vaal-ext score writes them all."
    )
    sections = [_trainings(project), _images(project, images), scores, _settings(project)]
    return Page(f"Labelling in {project.path.name}", about, sections).write(
        path, "how far the project is, as a page"
    )


def _trainings(project: Project) -> Section:
    section, trainings = Section("How good the networks are"), project.trainings()
    if not trainings:
        section.missing("No network is trained yet.")
        return section
    known = [row for row in trainings if row.evaluated >= FEWEST]
    if len(known) > 1:
        ends = f"{100 * float(known[0].accuracy):.1f} to {100 * float(known[-1].accuracy):.1f} %"
        section.chart(
            partial(_chart, known),
            partial(_picture, trainings=known),
            f"Accuracy against the labels trained on: {ends}. The table below holds every point.",
            "The bars are 95% intervals (Clopper and Pearson).",
        )
    else:
        section.missing(
            f"No curve: fewer than two trainings had {FEWEST} labels or more to be evaluated on."
        )
    lines = [["training", "labels", "evaluated on", "accuracy [%]", "loss", "training [s]"]]
    for row in trainings:
        accuracy = f"{100 * float(row.accuracy):.1f}" if row.evaluated >= FEWEST else ""
        loss = f"{float(row.loss):.3f}" if row.evaluated else ""
        cells = str(row.labels), str(row.evaluated), accuracy, loss, f"{row.seconds:.1f}"
        lines.append([str(row.training), *cells])
    section.table("Trainings", lines)
    section.text(f"The last one, in words: {described(trainings[-1], project)}.")
    return section


def _points(trainings: Sequence[Training]) -> tuple[list[int], list[float], list[list[float]]]:
    """Labels, accuracies [%], and how far below and above them their intervals reach."""
    accuracies = [100 * float(row.accuracy) for row in trainings]
    intervals = [[100 * end for end in accuracy_interval(row)] for row in trainings]
    below = [value - low for value, (low, _) in zip(accuracies, intervals, strict=True)]
    above = [high - value for value, (_, high) in zip(accuracies, intervals, strict=True)]
    return [row.labels for row in trainings], accuracies, [below, above]


def _chart(trainings: Sequence[Training]) -> Figure:
    from vaal_ext.report.charts import interval_chart

    labels, accuracies, (below, above) = _points(trainings)
    texts = [f"training {row.training}" for row in trainings]
    return interval_chart(labels, accuracies, below, above, texts)


def _picture(path: Path, trainings: Sequence[Training]) -> None:
    labels, accuracies, reach = _points(trainings)
    figure = new_figure(7.2, 4.0)
    axes = figure.subplots()
    axes.errorbar(labels, accuracies, yerr=reach, marker="o", capsize=3)
    axes.set_xlabel("labels trained on")
    axes.set_ylabel("accuracy [%]")
    write_figure(figure, path)


def _images(project: Project, images: ImageFiles) -> Section:
    section, asked, answers = Section("What was asked for"), project.asked(), project.answers()
    if not asked:
        section.missing("Nothing was asked for yet.")
        return section
    section.text(
        f"The first {_IMAGES} images of up to {_QUERIES} queries. Below each its label; in red, "
        "the network's guess → the label, where they differ. Images without an answer show no "
        "guess: it would sway whoever answers."
    )
    position = {name: i for i, name in enumerate(images.names)}
    for number in evenly_spaced(sorted({row.query for row in asked}), _QUERIES):
        shown, gone = [], 0
        for row in [row for row in asked if row.query == number][:_IMAGES]:
            pixels = _pixels(images, position.get(row.image))
            if pixels is None:
                gone += 1
                continue
            answer = answers.get(row.image, "")
            guess = row.guess if answer not in ("", SKIP) else ""
            shown.append(QueriedImage(row.image, pixels, guess, answer))
        section.heading(f"query {number}")
        section.images(image_tiles(shown))
        if gone:
            section.missing(f"{counted(gone, 'image')} of query {number} cannot be read any more.")
    lines = [["image", "query", "label", "guess", "LDR", "percentile rank", "entropy"]]
    for row in asked:
        answer = answers.get(row.image, "")
        guess = row.guess if answer else ""
        scores = row.ldr, row.percentile_rank, row.entropy
        lines.append([row.image, str(row.query), answer, guess, *scores])
    section.table("Every image that was asked for, with its scores", lines, folded=True)
    return section


def _pixels(images: ImageFiles, position: int | None) -> np.ndarray | None:
    """Of the image at a position, float32 [H, W, 3] in 0..1; None where it cannot be read.

    A page does without it: what needs the image stops, or leaves it out, by itself.
    """
    if position is None:
        return None
    try:
        found = images[position]
    except (OSError, ValueError):
        return None
    return None if found is None else found.permute(1, 2, 0).numpy()


def _settings(project: Project) -> Section:
    section = Section("Settings and versions")
    rows = [[name, json.dumps(value)] for name, value in project.config.settings().items()]
    section.table("Settings", [["setting", "value"], *rows], prose=True, folded=True)
    software = [[name, version] for name, version in versions().items()]
    section.table("Versions that wrote this page", [["software", "version"], *software], prose=True)
    return section
