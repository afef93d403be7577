"""A query as those who label get it: a table, a picture, and tasks for Label Studio.

``query_N.csv``     number, image, label; the labels are for a person to fill in. It is never
                    written again: what was typed into it stays
``query_N.png``     the images, each with its number
``query_N.json``    the same as Label Studio's tasks (its "Basic Label Studio JSON format")
``label_studio.xml`` the labelling interface that goes with them

None shows the network's guess: it would sway whoever sees it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from vaal_ext.atomic import write_atomically
from vaal_ext.labelling.answers import TASK_KEY
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.project import Project
from vaal_ext.report.figures import Thumbnail, draw_contact_sheet

__all__ = ["hand_out"]

_SHEET_COLUMNS, _SHEET_IMAGES = 10, 200


def hand_out(project: Project, query: int, asked: Sequence[str], images: ImageFiles) -> str:
    """Write the files of a query; a line that names them.

    `asked` are the names of its images. Made again they are the same, but for the CSV, which is
    left as it is.
    """
    stem = f"query_{query}"
    there = set(images.names)
    _draw(project.path / f"{stem}.png", query, asked, images, there)
    _write_tasks(project, stem, asked)
    if not (project.path / f"{stem}.csv").exists():
        rows = ((number, image, "") for number, image in enumerate(asked, 1))
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


def _write_tasks(project: Project, stem: str, asked: Sequence[str]) -> None:
    # Label Studio serves local files by their path below its document root, which the README tells
    # the user to make the parent of the image folder: a storage must lie below the root.
    folder = Path(project.config.images).name
    tasks = [
        {"data": {"image": f"/data/local-files/?d={quote(f'{folder}/{name}')}", TASK_KEY: name}}
        for name in asked
    ]
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
                        '  <Image name="image" value="$image"/>',
                        '  <Choices name="label" toName="image" choice="single" required="true">',
                    ],
                    choices,
                    ["  </Choices>", "</View>", ""],
                )
            )
        )
