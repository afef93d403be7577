"""The answers that people give: read from CSV or from Label Studio, and held against those before.

A CSV has the columns ``image`` and ``label`` (others are ignored; comma, semicolon or tab between
them). Names of images are taken as they stand there, blanks included.

Of Label Studio the export formats JSON, JSON-MIN and CSV are read, as version 1.0 and later write
them. In JSON every task has its annotations, of which those with ``choices`` count; a skipped
(cancelled) annotation is the answer "skip". The two others have a record for each annotation, with
``vaal_ext_image`` beside the ``image`` that Label Studio shows, and nothing of what was skipped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaal_ext.files.reading import parse_json
from vaal_ext.labelling.config import SKIP
from vaal_ext.labelling.names import Names

__all__ = ["NOT_TAKEN", "OUTCOMES", "TASK_KEY", "Answer", "Outcome", "judge", "read_answers"]

# The image's name among the data of a Label Studio task, which an export gives back.
TASK_KEY = "vaal_ext_image"

OUTCOMES = {
    "new": "labels of images that had none",
    "skipped": f"answered {SKIP}: never asked again, never trained on",
    "changed": "another answer than before: the new one counts",
    "same": "as answered before",
    "unanswered": "no label: still open",
    "conflict": "several answers that differ: none taken",
    "unknown class": "none of the project's classes: not taken",
    "unknown image": "not in the project's folder: not taken",
}
NOT_TAKEN = ("conflict", "unknown class", "unknown image")


@dataclass(frozen=True)
class Answer:
    """What one row or annotation says of an image: a class, ``skip``, or "" for no answer."""

    image: str
    label: str


@dataclass(frozen=True)
class Outcome:
    """What becomes of all the answers to one image in a file; a key of ``OUTCOMES``.

    ``labels`` are the different answers, in the file's order; ``before`` is the one that counted
    so far, or None. ``suggestion`` is a name that may have been meant by an unknown one, or "".
    """

    image: str
    outcome: str
    labels: tuple[str, ...]
    before: str | None
    suggestion: str = ""


def read_answers(path: Path) -> list[Answer]:
    """All answers in a file, in its order.

    Raises:
        OSError: it cannot be read.
        ValueError: it is neither such a CSV nor such an export, as a whole; nothing is guessed.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as CSV UTF-8") from None
    if text.lstrip().startswith(("[", "{")):
        return _from_label_studio(text, path)
    return _from_csv(text, path)


def judge(
    answers: Iterable[Answer],
    current: Mapping[str, str],
    classes: Collection[str],
    images: Collection[str],
) -> list[Outcome]:
    """What becomes of the answers: one outcome for each image, in order of appearance.

    Images and classes are found as :class:`~vaal_ext.labelling.names.Names` finds them, and have
    their own names from then on.

    Args:
        answers: of one file.
        current: the answers that count so far, by image.
        classes: of the project.
        images: the names of all images that may be answered.
    """
    known, labels_known = Names(images), Names([*classes, SKIP])
    given: dict[str, list[str]] = {}
    for answer in answers:
        image = known.find(answer.image)
        labels = given.setdefault(answer.image if image is None else image, [])
        label = labels_known.find(answer.label) or answer.label
        if label and label not in labels:
            labels.append(label)
    outcomes = []
    for image, labels in given.items():
        before, suggestion = current.get(image), ""
        if known.find(image) is None:
            outcome, suggestion = "unknown image", known.suggestion(image)
        elif len(labels) > 1:
            outcome = "conflict"
        elif not labels:
            outcome = "unanswered"
        elif labels_known.find(labels[0]) is None:
            outcome, suggestion = "unknown class", labels_known.nearest(labels[0])
        elif before == labels[0]:
            outcome = "same"
        elif before is not None:
            outcome = "changed"
        else:
            outcome = "skipped" if labels[0] == SKIP else "new"
        outcomes.append(Outcome(image, outcome, tuple(labels), before, suggestion))
    return outcomes


def _from_csv(text: str, path: Path) -> list[Answer]:
    if "\n" not in text:  # lines as Excel's "CSV (Macintosh)" ends them
        text = text.replace("\r", "\n")
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=separator, restval="")
    try:
        columns = [name.strip() for name in reader.fieldnames or []]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    if "label" not in columns or not {"image", TASK_KEY} & set(columns):
        raise ValueError(
            f"{path} must be a CSV with the columns image and label, or Label Studio's export "
            f"as JSON, JSON-MIN or CSV; its first line is {header.strip()[:80]!r}"
        )
    for name in ("label", "image", TASK_KEY):
        if columns.count(name) > 1:
            raise ValueError(f"{path} has {columns.count(name)} columns {name!r}: leave one")
    reader.fieldnames = columns
    answers: list[Answer] = []
    try:
        for row in reader:
            if any(row.pop(None, ())):
                raise csv.Error(f"more cells than the {len(columns)} columns of the first line")
            image = row.get(TASK_KEY) or row.get("image", "")
            label = row["label"].strip()
            if not image.strip() and not label:
                continue
            # Several choices are JSON inside the cell of Label Studio's CSV.
            several = TASK_KEY in columns and label.startswith(("[", "{"))
            choices = _choices(parse_json(label)) if several else [label]
            answers += [Answer(image, choice) for choice in choices or [""]]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"{path}, line {reader.line_num}: the label {label[:80]!r} is not what Label Studio "
            "exports"
        ) from None
    return answers


def _from_label_studio(text: str, path: Path) -> list[Answer]:
    try:
        tasks = parse_json(text)
        if not isinstance(tasks, list):
            raise TypeError("it is no list of tasks")
        return [
            answer
            for task in tasks
            for answer in (_of_task(task) if "data" in task else _of_record(task))
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path} is not what Label Studio exports as JSON or JSON-MIN: {reason}"
        ) from error


def _of_task(task: Mapping[str, Any]) -> list[Answer]:
    """The answers to one task; one without a label where nobody has annotated it."""
    data = task["data"]
    # A task that was not made from our file is reported by whatever it shows, as unknown.
    image = str(data.get(TASK_KEY) or data.get("image") or f"task {task.get('id')}")
    answers = []
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            answers.append(Answer(image, SKIP))
        for part in annotation["result"]:
            if part["type"] == "choices":
                answers += [Answer(image, label) for label in _choices(part["value"])]
    return answers or [Answer(image, "")]


def _of_record(record: Mapping[str, Any]) -> list[Answer]:
    """The answers in a record of JSON-MIN; one without a label where there is none."""
    image = str(record.get(TASK_KEY) or record["image"])
    return [Answer(image, label) for label in _choices(record.get("label") or "") or [""]]


def _choices(value: Any) -> list[str]:
    """The choices in a value as Label Studio exports them: one, or a list, or under "choices"."""
    if isinstance(value, Mapping):
        return _choices(value["choices"])
    if isinstance(value, list):
        return [choice for part in value for choice in _choices(part)]
    return [str(value)]
