"""What the commands say: the next one works as it is printed, and accuracies know their number."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from labelling_project import (
    FILES,
    asked,
    begin,
    fill_in,
    rows,
    write_answers,
)

from vaal_ext.cli.app import main
from vaal_ext.labelling.project import Project
from vaal_ext.labelling.tables import Training
from vaal_ext.labelling.wording import described

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")


def next_command(out: str) -> list[str]:
    """The arguments of the command that the last line names, as a shell would read them."""
    words = shlex.split(out.splitlines()[-1])
    assert words[:2] == ["next:", "vaal-ext"], out
    return words[2:]


def follow(capsys, *arguments: str) -> list[str]:
    """Gives a command, which must not refuse; what it says is to come next."""
    assert main(list(arguments)) == 0
    return next_command(capsys.readouterr().out)


def test_the_next_command_works_whatever_was_answered(place, capsys):
    begin(query_size="4", held_out="0", strategy="random")
    sheet = ["label", "--project", "project", "project/query_1.csv"]
    assert next_command(capsys.readouterr().out) == sheet
    assert follow(capsys, *sheet) == sheet  # nothing was filled in
    skips = write_answers("skips.csv", [(image, "skip") for image in asked(1)[:3]])
    assert follow(capsys, "label", "--project", "project", skips) == sheet
    skips = write_answers("skips.csv", [(image, "skip") for image in asked(1)])
    assert follow(capsys, "label", "--project", "project", skips) == ["query", *sheet[1:3]]
    assert follow(capsys, "query", "--project", "project")[-1] == "project/query_2.csv"
    fill_in(2)
    assert follow(capsys, *sheet[:3], "project/query_2.csv") == ["train", *sheet[1:3]]
    assert follow(capsys, "train", "--project", "project") == ["query", *sheet[1:3]]
    # The same again is nothing new to train on.
    assert follow(capsys, *sheet[:3], "project/query_2.csv") == ["query", *sheet[1:3]]


def test_to_the_end_by_what_is_said(place, capsys):
    begin(query_size="14", held_out="0")
    command = next_command(capsys.readouterr().out)
    given = []
    while command[0] != "predict":
        given.append(command[0])
        if command[0] == "label":
            fill_in(int(Path(command[-1]).stem.removeprefix("query_")))
        command = follow(capsys, *command)
    assert given == ["label", "train", "query", "label", "train"]
    assert main(command) == 0
    assert len(rows("project/predictions.csv")) == len(FILES)
    assert follow(capsys, "query", "--project", "project") == command  # nothing left to ask


def test_without_a_label_to_train_on_it_says_what_lacks(place, capsys):
    begin(query_size="1", held_out="0.9")
    for labels in (0, 1):
        if labels:
            fill_in(1)
        assert main(["label", "--project", "project", "project/query_1.csv"]) == 0
        out = capsys.readouterr().out
        lacking = "there must be a label to train on: the project has "
        held_out = f"1 labels, 1 of them held out to evaluate on\n{next_line('query')}"
        assert lacking + (held_out if labels else f"0 labels\n{next_line('label')}") in out
    assert main(["train", "--project", "project"]) == 2
    assert next_line("query") in capsys.readouterr().err


def next_line(command: str) -> str:
    return f"next: vaal-ext {command} --project project"


def test_no_path_is_taken_for_an_option(place, capsys):
    assert begin("-pets") == 0
    *_, project, sheet = next_command(capsys.readouterr().out)
    assert (project, sheet) == ("./-pets", "./-pets/query_1.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_no_answer_can_hold_is_refused_before_there_is_a_project(place, capsys):
    image = next(path for path in Path("images").rglob("*") if path.is_file())
    os.link(image, os.fsdecode(b"images/bad\xff" + image.suffix.encode()))
    assert begin() == 2
    assert r"the name 'bad\udcff.jpg' is not UTF-8" in capsys.readouterr().err
    assert not Path("project").exists()


@pytest.mark.parametrize("name", ["my pets", "it's; $HOME", '"quoted" & more', "été*"])
def test_commands_are_quoted_for_a_shell(name, place, capsys):
    assert main(["query", "--project", name]) == 2
    words = shlex.split(capsys.readouterr().err.partition("begin one with: vaal-ext ")[2])
    assert words[:3] == ["query", "--project", name]
    assert begin(name) == 0
    sheet = f"{name}/query_1.csv"
    assert next_command(capsys.readouterr().out) == ["label", "--project", name, sheet]


@pytest.mark.slow
def test_a_shell_takes_the_next_command_as_it_is_printed(place, capsys):
    begin("it's; $HOME *")
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("next: vaal-ext ")
    script = f"{shlex.quote(sys.executable)} -m vaal_ext {line}"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "answers to 5 images" in done.stdout


def test_an_accuracy_has_its_interval_and_too_few_labels_have_none(place):
    begin()
    project = Project(Path("project"))
    row = Training(3, 1, 16, 1, "0", "2.3", 0.1, 1.0, "")
    said = described(row, project)
    assert "0 of 1 labels held out are right, too few to tell" in said
    assert "%" not in said
    nine = described(replace(row, evaluated=9, accuracy="0.888888889"), project)
    assert "8 of 9 labels held out are right, too few to tell" in nine
    # Ten of ten: the lower end of Clopper and Pearson is 0.025 ** (1 / 10) = 0.6915.
    ten = described(replace(row, evaluated=10, accuracy="1"), project)
    assert "10 of 10 labels held out are right: accuracy 100.0% (95% interval 69.2 to 100" in ten
    # 15 of 20: 50.9 and 91.3, as tables of the interval have it.
    twenty = described(replace(row, evaluated=20, accuracy="0.75"), project)
    assert "accuracy 75.0% (95% interval 50.9 to 91.3%)" in twenty


def test_what_is_announced_is_there_after_the_next_training(place, capsys):
    begin()
    announced = []
    for number in (1, 2):
        assert main(["label", "--project", "project", fill_in(number)]) == 0
        capsys.readouterr()
        assert main(["train", "--project", "project"]) == 0
        lines = capsys.readouterr().out.splitlines()
        announced += [line.partition(": ")[0] for line in lines if "its weights" in line]
        assert main(["query", "--project", "project"]) == 0
    assert announced == ["project/weights_1.pt", "project/weights_2.pt"]
    assert all(Path(path).is_file() for path in announced)
