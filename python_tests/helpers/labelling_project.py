"""What the tests of labelling share: a folder of small images, a project on it, a person."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from csv_files import rows

from vaal_ext.cli.app import main

CLASSES = ("dark", "light")
FILES = [
    *(f"shelf/{i:02}.jpg" for i in range(14)),
    *(f"{i:02}.jpg" for i in range(14)),
]


def truth(image: str) -> str:
    """Dark and light in turn."""
    return CLASSES[int(Path(image).stem) % 2]


def write_images(folder: Path, files=FILES, size=(8, 8)) -> None:
    """JPEGs, some in a folder of their own; the label is plain to see."""
    image_module = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for file in files:
        low = 20 if truth(file) == "dark" else 160
        pixels = rng.integers(low, low + 60, (*size, 3), dtype=np.uint8)
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        image_module.fromarray(pixels).save(folder / file)


def go_to_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory from now on, with a folder ``images``."""
    monkeypatch.chdir(folder)
    write_images(Path("images"))
    return folder


def begin(project: str = "project", **options: str) -> int:
    """The first query on the folder ``images``, of five images; training takes three steps."""
    given = {
        "data": "folder:images", "classes": ",".join(CLASSES), "query-size": "5", "steps": "3",
        "device": "cpu",
    } | {name.replace("_", "-"): value for name, value in options.items()}  # fmt: skip
    arguments = (part for key, value in given.items() for part in (f"--{key}", value))
    return main(["query", "--project", project, *arguments])


def step(name: str, *arguments: str) -> None:
    assert main([name, "--project", "project", *arguments]) == 0


def asked(number: int, project: str = "project") -> list[str]:
    return [row["image"] for row in rows(f"{project}/query_{number}.csv")]


def write_answers(path: str, answers: list[tuple[str, str]]) -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label"), *answers])
    return path


def fill_in(number: int, project: str = "project") -> str:
    """What a person does with a spreadsheet: the query's own file, its last column filled."""
    path = f"{project}/query_{number}.csv"
    filled = [(row["number"], row["image"], truth(row["image"])) for row in rows(path)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("number", "image", "label"), *filled])
    return path


def annotate(number: int, path: str, project: str = "project") -> str:
    """What Label Studio does with the query's tasks, all of them answered, and its export."""
    tasks = json.loads(Path(f"{project}/query_{number}.json").read_text())
    exported = [
        {"id": i, "data": task["data"], "project": 1, "drafts": [], "predictions": []}
        | {"annotations": [annotation([truth(task["data"]["vaal_ext_image"])])]}
        for i, task in enumerate(tasks, 1)
    ]
    Path(path).write_text(json.dumps(exported))
    return path


def annotation(choices: list[str], *, cancelled: bool = False) -> dict:
    """One annotation, as the guide "Label Studio JSON format of annotated tasks" has it."""
    result = {
        "id": "Dx_aB91ISN", "type": "choices", "from_name": "label", "to_name": "image",
        "origin": "manual", "value": {"choices": choices},
    }  # fmt: skip
    return {
        "id": 1001, "completed_by": 1, "result": [result] if choices else [], "lead_time": 4.2,
        "was_cancelled": cancelled, "ground_truth": False, "task": 1,
    }  # fmt: skip
