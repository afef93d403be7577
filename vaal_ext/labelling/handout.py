"""A query as those who label get it: a table, a picture, and tasks for Label Studio.

``query_N.csv``     number, image, label; the labels are for a person to fill in. It is never
                    written again: what was typed into it stays
``query_N.png``     the images, each with its number
``query_N.json``    the same as Label Studio's tasks (its "Basic Label Studio JSON format")
``label_studio.xml`` the labelling interface that goes with them

None shows the network's guess: it would sway whoever sees it. But a project whose setting
``predictions`` is true has it among the tasks, as Label Studio's predictions, for who would rather
correct than choose: what is then agreed to is no longer a second opinion.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from vaal_ext.files.atomic import write_atomically
from vaal_ext.labelling.answers import TASK_KEY
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.project import Project
from vaal_ext.labelling.tables import Asked
from vaal_ext.report.figures import Thumbnail, draw_contact_sheet

__all__ = ["hand_out"]

_SHEET_COLUMNS, _SHEET_IMAGES = 10, 200

# The tags of the labelling interface, which a prediction names; the exports have a column "label".
_IMAGE, _CHOICES = "image", "label"


def hand_out(project: Project, asked: Sequence[Asked], images: ImageFiles) -> str:
    """Write the files of a query; a line that names them.

    `asked` are the rows of the query, one or more. Made again the files are the same, but for the
    CSV, which is left as it is.
    """
    query = asked[0].query
    stem = f"query_{query}"
    there = set(images.names)
    _draw(project.path / f"{stem}.png", query, [row.image for row in asked], images, there)
    _write_tasks(project, stem, asked)
    if not (project.path / f"{stem}.csv").exists():
        rows = ((number, row.image, "") for number, row in enumerate(asked, 1))
        project.write_table(f"{stem}.csv", ("number", "image", "label"), rows)
    return f"{project.path / stem}.csv (fill in label), .png, and .json for Label Studio"


def _draw(
    path: Path, query: int, asked: Sequence[str], images: ImageFiles, there: set[str]
) -> None:
    position = {name: i for i, name in enumerate(images.names)}
    shown = [
        Thumbnail(pixels.permute(1, 2, 0).numpy(), str(number), False)
        for number, image in enumerate(asked[:_SHEET_IMAGES], 1)
        if image in there and (pixels := images[position[image]]) is not None
    ]
    if not shown:  # all were deleted since
        return
    rows = [
        ("", shown[start : start + _SHEET_COLUMNS])
        for start in range(0, len(shown), _SHEET_COLUMNS)
    ]
    cut = f"; the first {_SHEET_IMAGES} of {len(asked)}" if len(asked) > _SHEET_IMAGES else ""
    draw_contact_sheet(path, rows, f"query {query}", f"above each image its number{cut}")


def _write_tasks(project: Project, stem: str, asked: Sequence[Asked]) -> None:
    # Label Studio serves local files by their path below its document root, which the page
    # "Label with people" tells the user to make the parent of the image folder: a storage must lie
    # below the root.
    folder = Path(project.config.images).name
    # The network that the query was made by: the last that was trained before it.
    earlier = (row.training for row in project.trainings() if row.query < asked[0].query)
    version = f"training {max(earlier, default=0)}"
    tasks = []
    for row in asked:
        url = f"/data/local-files/?d={quote(f'{folder}/{row.image}')}"
        task: dict[str, Any] = {"data": {"image": url, TASK_KEY: row.image}}
        if project.config.predictions and row.guess:
            task["predictions"] = [_prediction(row, version, len(project.config.classes))]
        tasks.append(task)
    with write_atomically(project.path / f"{stem}.json", "w") as file:
        json.dump(tasks, file, indent=1)
        file.write("\n")
    choices = [f"    <Choice value={quoteattr(name)}/>" for name in project.config.classes]
    with write_atomically(project.path / "label_studio.xml", "w") as file:
        file.write(
            "\n".join(
                itertools.chain(
                    [
                        "<View>",
                        f'  <Image name="{_IMAGE}" value="$image"/>',
                        f'  <Choices name="{_CHOICES}" toName="{_IMAGE}" choice="single" '
                        'required="true">',
                    ],
                    choices,
                    ["  </Choices>", "</View>", ""],
                )
            )
        )


def _prediction(row: Asked, version: str, num_classes: int) -> dict[str, Any]:
    """The network's guess in Label Studio's format of predictions.

    The score, by which Label Studio can sort, is 1 for a network that is sure and 0 for one that
    finds all classes equally probable: 1 less the posterior's entropy as a share of the largest.
    """
    value = {"choices": [row.guess]}
    part = {"from_name": _CHOICES, "to_name": _IMAGE, "type": "choices", "value": value}
    score = round(1.0 - float(row.entropy) / math.log(num_classes), 4)
    return {"model_version": version, "score": score, "result": [part]}
