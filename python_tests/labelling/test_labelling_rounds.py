"""Rounds of labelling, played through with nothing but the commands."""

from __future__ import annotations

import itertools
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import Killed
from labelling_project import (
    CLASSES,
    FILES,
    annotate,
    asked,
    begin,
    fill_in,
    rows,
    step,
    truth,
    write_answers,
    write_images,
)
from real_data import real_data

from vaal_ext.cli.app import main
from vaal_ext.files.atomic import write_atomically
from vaal_ext.files.claim import FolderInUseError
from vaal_ext.labelling import handout, steps
from vaal_ext.labelling.project import Project
from vaal_ext.pool import first_batch

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

STEPS = ("query", "label", "train")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def table(path: str) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(path)]


def test_three_rounds(place, capsys):
    """By hand in a spreadsheet, then in Label Studio, then from a file of one's own."""
    assert begin() == 0
    assert "query 1: 5 of 28 images, at random: there is no network yet" in capsys.readouterr().out
    step("label", fill_in(1))
    step("train")
    step("query")
    out = capsys.readouterr().out
    assert "query 2: 5 of 23 images, by vaal, the network of training 1" in out
    step("label", annotate(2, "export.json"))
    step("train")
    step("query")
    step("label", write_answers("mine.csv", [(image, truth(image)) for image in asked(3)]))
    step("train")
    out = capsys.readouterr().out
    assert "query 3: 5 of 5 answered; in all 15 labels" in out
    assert out.endswith("next: vaal-ext query --project project\n")
    every = asked(1) + asked(2) + asked(3)
    assert len(set(every)) == 15
    assert set(every) <= set(FILES)
    given = rows("project/labels.csv")
    assert [(row["image"], row["label"]) for row in given] == [(i, truth(i)) for i in every]
    assert {row["source"] for row in given} == {"query_1.csv", "export.json", "mine.csv"}
    trainings = rows("project/trainings.csv")
    assert [int(row["labels"]) + int(row["evaluated"]) for row in trainings] == [5, 10, 15]
    assert all(0 <= float(row["accuracy"] or 0) <= 1 for row in trainings)
    scored = [row for row in rows("project/queries.csv") if row["query"] != "1"]
    assert all(float(row["ldr"]) >= 0 and row["guess"] in CLASSES for row in scored)
    # 23 and then 18 samples, upward from rank 90: the first candidate is the least above it.
    assert all(float(scored[i]["percentile_rank"]) > 90 for i in (0, 5))


def test_the_first_network_that_chooses_is_looked_at(place, monkeypatch):
    seen = []
    monkeypatch.setattr(first_batch, "look_at_network", lambda *_: seen.append(len(seen)))
    begin()
    for number in (1, 2, 3):
        assert len(seen) == min(number - 1, 1)
        step("label", fill_in(number))
        step("train")
        step("query")
    assert len(seen) == 1


def test_the_weights_are_for_score(place, monkeypatch):
    begin()
    step("label", fill_in(1))
    step("train")
    monkeypatch.chdir("project")
    arguments = "--model network:network --weights weights_1.pt --data folder:../images"
    assert main(["score", *arguments.split(), "--out", "../scores.npz", "--device", "cpu"]) == 0
    assert len(np.load("../scores.npz")["ldr"]) == len(FILES)


def test_every_step_may_be_repeated(place):
    begin()
    for number in (1, 2):
        answers = fill_in(number)
        for command in (["query"], ["label", answers], ["train"]):
            step(*command)
            before = contents(place / "project")
            step(*command)
            assert contents(place / "project") == before, command
        step("query")
    assert [row["query"] for row in rows("project/queries.csv")] == [*"111112222233333"]


def play(project: str, moment: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Two rounds, killed before or after a rename; whether that moment came.

    The command that was killed is given again, as a person would.
    """
    real, seen = os.replace, 0

    def deadly(*arguments):
        nonlocal seen
        for when in ("before", "after"):
            if when == "after":
                real(*arguments)
            seen += 1
            if seen == moment:
                raise Killed

    def give(command: str) -> None:
        """What the command does; building typer's parser 300 times would take half a minute."""
        if command == "query" and not Path(project, "config.json").exists():
            assert begin(project) == 0
            return
        argument = None
        if command == "label":
            number = rows(f"{project}/queries.csv")[-1]["query"]
            argument = Path(annotate(int(number), "export.json", project))
        list(getattr(steps, command)(Project(Path(project)), argument))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", deadly)
        patch.setattr(os, "fsync", lambda _: None)  # slow, and no help against an exception
        for command in STEPS * 2:
            try:
                give(command)
            except Killed:
                give(command)
    return seen >= moment > 0


def draw_quickly(path, rows, title, note):
    """Two hundred real contact sheets would take most of a minute."""
    with write_atomically(path, "w") as file:
        file.write(f"{title} {[image.caption for _, images in rows for image in images]}")


@pytest.mark.slow
def test_killed_before_and_after_every_file(place, monkeypatch):
    monkeypatch.setattr(handout, "draw_contact_sheet", draw_quickly)
    monkeypatch.setattr("vaal_ext.report.page._thumbnail", lambda pixels, alt: alt)
    play("whole", 0, monkeypatch)
    for moment in itertools.count(1):
        project = f"killed_{moment}"
        if not play(project, moment, monkeypatch):
            break
        before, after = contents(Path("whole")), contents(Path(project))
        assert before.keys() == after.keys()
        for name in before:
            # The page shows the times of the trainings too, and the project's name.
            if not name.startswith(("trainings", "weights", ".checksums", "report")):
                assert before[name] == after[name], name
        assert table(f"{project}/trainings.csv") == table("whole/trainings.csv")
        one, other = (torch.load(f"{p}/weights_2.pt") for p in (project, "whole"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    # config, what is kept of it, its checksum; in each of two rounds: the table of queries,
    # picture, tasks, interface, sheet, page; those not taken, answers; weights, factory, trainings,
    # page; and the checksums of the three tables.
    assert moment - 1 == 2 * (3 + 2 * (6 + 2 + 4 + 3))


def test_partial_answers(place, capsys):
    begin()
    first = asked(1)
    step("label", write_answers("some.csv", [(image, truth(image)) for image in first[:3]]))
    capsys.readouterr()
    step("query")  # before the training: the same query
    out = capsys.readouterr().out
    assert "query 1 as before: 3 of its 5 images have an answer" in out
    assert out.endswith("next: vaal-ext train --project project\n")
    step("train")
    step("query")
    assert not set(first[:3]) & set(asked(2))
    # The two others went back to the pool, and their answers are still taken.
    assert "query 2: 5 of 25 images" in capsys.readouterr().out
    step("label", write_answers("late.csv", [(image, truth(image)) for image in first[3:]]))
    assert set(first) <= {row["image"] for row in rows("project/labels.csv")}


def test_what_is_typed_into_a_query_stays(place):
    begin()
    typed = Path(fill_in(1)).read_bytes()
    Path("project/query_1.png").unlink()
    step("query")
    assert Path("project/query_1.csv").read_bytes() == typed
    assert Path("project/query_1.png").exists()


def test_nothing_but_skips_leads_to_another_random_query(place, capsys):
    begin()
    step("label", write_answers("skips.csv", [(image, "skip") for image in asked(1)]))
    assert main(["train", "--project", "project"]) == 2
    assert "there must be a label to train on" in capsys.readouterr().err
    step("query")
    assert "query 2: 5 of 23 images, at random" in capsys.readouterr().out
    assert not set(asked(1)) & set(asked(2))


def test_until_nothing_is_left(place, capsys):
    begin(query_size="20", strategy="random", held_out="0")
    for number in (1, 2):
        step("label", fill_in(number))
        step("train")
        step("query")
    assert len(asked(2)) == 8
    assert "all 28 images have an answer: there is nothing left to ask" in capsys.readouterr().out


def test_gone_and_new_images(place, capsys):
    begin()
    step("label", fill_in(1))
    step("train")
    Path("images", asked(1)[0]).unlink()
    write_images(Path("images"), ["50.jpg"])
    step("train")
    out = capsys.readouterr().out
    assert "1 labelled images are gone and left out" in out
    step("query")
    assert "query 2: 5 of 24 images" in capsys.readouterr().out


def test_a_query_whose_images_are_gone_is_handed_out(place, capsys):
    begin()
    for image in asked(1):
        Path("images", image).unlink()
    step("query")
    assert "query 1 as before: 0 of its 5 images have an answer" in capsys.readouterr().out


def test_where_all_labels_are_held_out_more_are_asked_for(place, capsys):
    begin(query_size="1", held_out="0.9")
    for number in (1, 2):
        step("label", fill_in(number))
        assert main(["train", "--project", "project"]) == 2
        assert f"the project has {number} labels, {number} of them held" in capsys.readouterr().err
        step("query")
        assert (
            f"query {number + 1}: 1 of {28 - number} images, at random" in capsys.readouterr().out
        )


@pytest.mark.parametrize("damage", ["gone", "a flipped bit"])
def test_weights_that_are_lost_are_trained_again(damage, place, capfd):
    begin()
    step("label", fill_in(1))
    step("train")
    weights = Path("project/weights_1.pt")
    whole = torch.load(weights)
    if damage == "gone":
        weights.unlink()
    else:
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
        capfd.readouterr()
        step("query")
        said = capfd.readouterr()
        assert "weights_1.pt is damaged, its part archive/data/" in said.err
        assert "next: vaal-ext train" in said.out
    step("train")
    assert [path.name for path in Path("project").glob("weights_*")] == ["weights_1.pt"]
    assert [row["training"] for row in rows("project/trainings.csv")] == ["1"]
    again = torch.load(weights)
    assert all(torch.equal(again[key], whole[key]) for key in whole)


def test_what_a_kill_left_is_cleared_away(place):
    begin()
    leftover = Path("project/.0123456789abcdef.tmp")
    leftover.write_text("half a fi")
    step("query")
    assert not leftover.exists()


def test_one_process_at_a_time(place):
    begin()
    project = Project(Path("project"))
    with project.locked(), pytest.raises(FolderInUseError, match="at the project project"):
        list(steps.train(project, None))


@pytest.mark.data
def test_real_jpegs(tmp_path, monkeypatch, capsys):
    """CIFAR-10's images as JPEG, six of each class, two rounds."""
    monkeypatch.chdir(tmp_path)
    with tarfile.open(real_data("cifar10-jpeg.tar.xz"), "r|xz") as archive:
        for member in archive:
            path = Path(member.name)  # ending in PART/CLASS/NUMBER.jpg
            if path.parts[-3:-2] == ("train",) and path.name < "0006.jpg":
                target = Path("images", *path.parts[-2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    classes = sorted(path.name for path in Path("images").iterdir())
    assert begin(classes=",".join(classes), query_size="20") == 0
    for number in (1, 2):
        answers = [(image, image.split("/")[0]) for image in asked(number)]
        step("label", write_answers("answers.csv", answers))
        step("train")
        step("query")
    assert len({*asked(1), *asked(2), *asked(3)}) == 60
