"""What a project waits for: the next command on it, one that does not refuse."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.learner import fingerprint, parts
from vaal_ext.labelling.project import Project

__all__ = ["due", "is_current", "is_fresh", "labels_there", "lacking", "next_step"]


def labels_there(project: Project, images: ImageFiles) -> dict[str, str]:
    """The labels of the images that are there."""
    there = set(images.names)
    return {image: name for image, name in project.labels().items() if image in there}


def is_fresh(project: Project, images: ImageFiles) -> bool:
    """Whether the last training was on these labels and settings.

    It was not where it left images out that could not be read, and the project's `on_unreadable`
    is now "raise": the next training takes them, or says which of them stops it.
    """
    trainings, labels = project.trainings(), labels_there(project, images)
    if not trainings or trainings[-1].inputs_sha256 != fingerprint(project.config, labels):
        return False
    config, last = project.config, trainings[-1]
    held_out = 0 if config.test else last.evaluated  # of these labels
    return config.run.on_unreadable == "skip" or last.labels + held_out == len(labels)


def is_current(project: Project, images: ImageFiles) -> bool:
    """Whether it was, and its weights are there, undamaged (else a RuntimeWarning says so)."""
    return is_fresh(project, images) and project.has_whole_weights(project.trainings()[-1].training)


def due(project: Project, images: ImageFiles) -> tuple[str | Path, ...]:
    """The name of the command that takes the project on, and its arguments but for the project."""
    asked, answers = project.asked(), project.answers()
    if not asked:
        return ("query",)
    can_train = bool(parts(project.config, labels_there(project, images))[0])
    if can_train and not is_current(project, images):
        return ("train",)
    number = asked[-1].query
    answered = [row.image in answers for row in asked if row.query == number]
    nothing_left = all(name in answers for name in images.names)
    if can_train and nothing_left:
        return "predict", "--out", project.path / "predictions.csv"
    # Where all answers so far were "skip", or are held out, another query may bring what lacks.
    if not nothing_left and any(answered) and (can_train or all(answered)):
        return ("query",)
    return "label", project.path / f"query_{number}.csv"


def next_step(project: Project, images: ImageFiles) -> str:
    """A line with that command as a shell takes it, whatever characters the paths have."""
    name, *arguments = due(project, images)
    words = ["vaal-ext", str(name), "--project", project.path, *arguments]
    return f"next: {shlex.join(map(_word, words))}"


def _word(argument: str | Path) -> str:
    """An argument that no command takes for an option: a path may begin with a dash."""
    text = str(argument)
    return f"./{text}" if isinstance(argument, Path) and text.startswith("-") else text


def lacking(labels: Mapping[str, str]) -> str:
    """Why there can be no training: of `labels`, none is left to train on."""
    held_out = f", {len(labels)} of them held out to evaluate on" if labels else ""
    return f"there must be a label to train on: the project has {len(labels)} labels{held_out}"
