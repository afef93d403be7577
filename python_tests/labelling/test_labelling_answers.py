"""What becomes of answers: every outcome, both formats, and files that are none."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote

import pytest
from command_line import NOT_A_FOLDER, refuse
from hypothesis import given
from hypothesis import strategies as st
from labelling_project import (
    CLASSES,
    FILES,
    annotation,
    asked,
    begin,
    rows,
    truth,
    write_answers,
    write_images,
)

from vaal_ext.cli.app import main
from vaal_ext.labelling.answers import OUTCOMES, Answer, judge, read_answers
from vaal_ext.labelling.project import Project

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")


@pytest.fixture
def place(place):
    """A project with one query, nothing answered."""
    assert begin() == 0
    return place


def label(answers: str) -> int:
    return main(["label", "--project", "project", answers])


def counts(out: str) -> dict[str, int]:
    """The table that ``label`` prints."""
    lines = [line for line in out.splitlines() if line.startswith("  ") and line[2] != " "]
    return {line[2:16].strip(): int(line[16:22]) for line in lines}


def test_every_outcome_in_one_file(place, capsys):
    a, b, c, d, e = asked(1)
    f, g, h = [image for image in FILES if image not in asked(1)][:3]
    label(write_answers("first.csv", [(a, "dark"), (b, "light")]))
    capsys.readouterr()
    second = [
        (a, "light"),  # changed
        (b, "light"),  # same
        (c, " dark "),  # new; spaces do not count
        (c, "dark"),  # twice the same is one answer
        (c, ""),
        (d, "skip"),
        (e, ""),  # unanswered
        (f, "dark"),  # nobody asked for it: taken all the same
        (g, "dark"),
        (g, "light"),  # conflict
        (h, "drak"),
        ("nowhere.jpg", "dark"),
        ("", "dark"),
    ]
    assert label(write_answers("second.csv", second)) == 0
    out = capsys.readouterr().out
    assert counts(out) == {
        "new": 2, "skipped": 1, "changed": 1, "same": 1, "unanswered": 1, "conflict": 1,
        "unknown class": 1, "unknown image": 2,
    }  # fmt: skip
    assert f"{a}: dark -> light" in out
    assert f"{g}: dark, light\n" in out
    assert f"{h}: drak (did you mean dark?)" in out
    assert "query 1: 4 of 5 answered; in all 4 labels" in out
    assert "1 skipped" in out
    # Nothing is lost: what was replaced, and what was refused.
    assert rows("project/labels.csv")[2:] == [
        {"image": a, "label": "light", "before": "dark", "source": "second.csv"},
        {"image": c, "label": "dark", "before": "", "source": "second.csv"},
        {"image": d, "label": "skip", "before": "", "source": "second.csv"},
        {"image": f, "label": "dark", "before": "", "source": "second.csv"},
    ]
    assert [tuple(row.values()) for row in rows("project/not_taken.csv")] == [
        (g, "dark", "conflict", ""),
        (g, "light", "conflict", ""),
        (h, "drak", "unknown class", "dark"),
        ("nowhere.jpg", "dark", "unknown image", ""),
        ("", "dark", "unknown image", ""),
    ]


def test_refused_answers_are_mended_and_given_again(place, capsys):
    label(write_answers("first.csv", [("00.jpg", "drak"), ("01.jpg", "light")]))
    path = Path("project/not_taken.csv")
    path.write_text(path.read_text().replace("drak", "dark"))
    assert label(str(path)) == 0
    assert [row["image"] for row in rows("project/labels.csv")] == ["01.jpg", "00.jpg"]
    assert rows(path) == []


def test_a_label_after_a_skip_and_a_skip_after_a_label(place, capsys):
    label(write_answers("one.csv", [("00.jpg", "skip"), ("01.jpg", "light")]))
    label(write_answers("two.csv", [("00.jpg", "dark"), ("01.jpg", "skip")]))
    out = capsys.readouterr().out
    assert counts(out.split("two.csv")[1]) == {"changed": 2}
    assert "in all 1 labels (dark 1, light 0), 1 skipped" in out


def test_label_studio(place, capsys):
    a, b, c, d = asked(1)[:4]
    tasks = json.loads(Path("project/query_1.json").read_text())
    exported = {task["data"]["vaal_ext_image"]: task | {"annotations": []} for task in tasks}
    exported[a]["annotations"] = [annotation(["dark"])]
    exported[b]["annotations"] = [annotation([], cancelled=True)]
    exported[c]["annotations"] = [annotation(["dark"]), annotation(["light"])]
    exported[d]["annotations"] = [annotation([])]  # submitted without a choice
    stranger = {"id": 9, "data": {"image": "/data/upload/1/x.jpg"}}
    stranger["annotations"] = [annotation(["dark"])]
    Path("export.json").write_text(json.dumps([*exported.values(), stranger]))
    assert label("export.json") == 0
    assert counts(capsys.readouterr().out) == {
        "new": 1, "skipped": 1, "conflict": 1, "unanswered": 2, "unknown image": 1,
    }  # fmt: skip
    answers = {row["image"]: row["label"] for row in rows("project/labels.csv")}
    assert answers == {a: "dark", b: "skip"}


def test_the_tasks_are_what_label_studio_imports(place):
    tasks = json.loads(Path("project/query_1.json").read_text())
    assert [task["data"]["vaal_ext_image"] for task in tasks] == asked(1)
    for task in tasks:
        root, _, path = task["data"]["image"].partition("?d=")
        assert root == "/data/local-files/"
        # Below a document root that is the parent of the image folder.
        assert (place / unquote(path)).is_file()
    view = ElementTree.fromstring(Path("project/label_studio.xml").read_text())
    image, choices = view
    assert image.get("value") == "$image"  # the key of a task's data
    assert choices.get("toName") == image.get("name")
    assert [choice.get("value") for choice in choices] == list(CLASSES)


def test_names_that_need_quoting(place):
    write_images(Path("odd"), ["a & b/c, d?;é/00.jpg", "01.jpg"])
    assert begin("other", data="folder:odd", query_size="2") == 0
    tasks = json.loads(Path("other/query_1.json").read_text())
    paths = [task["data"]["image"].partition("?d=")[2] for task in tasks]
    assert not any(set(path) & set(" &?;é") for path in paths)  # what ends a URL's parameter
    assert all((place / unquote(path)).is_file() for path in paths)
    answers = [(image, truth(image)) for image in asked(1, "other")]
    assert main(["label", "--project", "other", write_answers("a.csv", answers)]) == 0
    assert len(rows("other/labels.csv")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "image,label\na.jpg,dark\n",
        "\ufeffimage;label\r\na.jpg;dark\r\n",  # what a spreadsheet saves in half of Europe
        "number\timage\tlabel\n1\ta.jpg\tdark\n",
        "label,image\ndark,a.jpg\n\n,,\n",
        'image,label,note\n"a.jpg","dark","of two\nlines"\n',
        "image,label\na.jpg,dark,\n",
    ],
)
def test_tables_as_programs_save_them(text, tmp_path):
    path = tmp_path / "answers.csv"
    path.write_bytes(text.encode())
    assert read_answers(path) == [Answer("a.jpg", "dark")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "with the columns image and label"),
        (b"picture,label\na,b\n", "its first line is 'picture,label'"),
        (b"image,label\n\xe9.jpg,dark\n", "is not UTF-8 text"),
        (b"image,label,label\na.jpg,dark,light\n", "has 2 columns 'label': leave one"),
        (b"image,label\na.jpg,dark,light\n", "line 2: more cells than the 2 columns"),
        (b'{"a": 1}', "exports as JSON or JSON-MIN: it is no list of tasks"),
        (b'[{"picture": "a.jpg", "label": "dark"}]', "exports as JSON or JSON-MIN: no 'image'"),
        (b"[" * 100_000, "is not what Label Studio exports as JSON"),
        (b"vaal_ext_image,label\na.jpg,[1\n", "line 2: the label '[1' is not what Label Studio"),
        (b'[{"data": {}}]', "no 'annotations'"),
        (b'[{"data": {}, "annotations": [{}]}]', "no 'result'"),
        (b"[1, 2]", "is not what Label Studio exports as JSON"),
        (b"[{", "is not what Label Studio exports as JSON"),
    ],
)
def test_files_that_hold_no_answers(content, message, place, capfd):
    Path("answers").write_bytes(content)
    refuse(place, capfd, ["label", "--project", "project", "answers"], message)


@given(
    answers=st.lists(
        st.builds(
            Answer, st.sampled_from("abcx"), st.sampled_from(["", "dark", "light", "skip", "?"])
        )
    ),
    current=st.dictionaries(st.sampled_from("abc"), st.sampled_from(["dark", "light", "skip"])),
)
def test_every_image_has_one_outcome_and_a_second_time_nothing_changes(answers, current):
    outcomes = judge(answers, current, CLASSES, "abc")
    assert [row.image for row in outcomes] == list(dict.fromkeys(row.image for row in answers))
    assert {row.outcome for row in outcomes} <= OUTCOMES.keys()
    taken = {
        row.image: row.labels[0] for row in outcomes if row.outcome in ("new", "skipped", "changed")
    }
    again = judge(answers, current | taken, CLASSES, "abc")
    for first, second in zip(outcomes, again, strict=True):
        assert second.outcome == ("same" if first.image in taken else first.outcome)


def test_commands_that_are_refused(place, capfd):
    query = ["query", "--project"]
    new = [*query, "new", "--data", "folder:images", "--classes", "a,b"]
    for arguments, message in [
        ([*query, "nothing"], "nothing holds no project; begin one with: vaal-ext query"),
        (["train", "--project", "nothing"], "nothing holds no project"),
        (["label", "--project", "nothing", "x"], "nothing holds no project"),
        (["label", "--project", "project", "x.csv"], "x.csv: No such file"),
        ([*new, "--classes", "a"], "two different names or more, got a"),
        ([*new, "--classes", "a,a"], "two different names or more, got a, a"),
        ([*new, "--classes", "a,skip"], "must not be empty, 'skip' or have spaces"),
        ([*new, "--data", "images"], "data must be folder:PATH, got 'images'"),
        ([*new, "--data", "folder:none"], "there is no folder"),
        ([*new, "--data", "folder:project/../new_images"], "there is no folder"),
        ([*query, "new", "--data", "folder:images"], "a project needs classes"),
        ([*new, "--query-size", "0"], "query_size must be at least 1, got 0"),
        ([*new, "--held-out", "1"], "held_out must be at least 0 and below 1, got 1.0"),
        ([*new, "--strategy", "best"], "strategy must be one of"),
        ([*new, "--image-size", "4"], "image_size must be at least 8, got 4"),
        ([*new, "--workers", "-1"], "--workers"),
        ([*new, "--model", "mine"], "package.module:factory, got 'mine'"),
        ([*query, "images/new", *new[3:]], "must not lie in its folder of images"),
        ([*query, "images", *new[3:]], "must not lie in its folder of images"),
        ([*query, str(NOT_A_FOLDER), *new[3:]], "Not a directory"),
        ([*query, "project", "--query-size", "9"], "query_size is 5, the command says 9"),
        ([*query, "project", "--classes", "dark,grey"], "the project's classes is"),
        (["train", "--project", "project"], "there must be a label to train on"),
    ]:
        refuse(place, capfd, arguments, message)


def test_a_folder_of_something_else_is_refused(place, capfd):
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("all I have")
    arguments = ["query", "--project", "full", "--data", "folder:images", "--classes", "a,b"]
    refuse(place, capfd, arguments, "holds no project but is not empty (thesis.txt)")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "project/config.json"),
        ("config.json", "[]", "project/config.json"),
        ("config.json", '{"images": "images", "classes": ["a", "b"], "rate": 1}', "no setting"),
        ("labels.csv", "image,label\n", "labels.csv is damaged: its columns must be image, label"),
        ("queries.csv", "query,image,guess,ldr,percentile_rank,entropy\nx,,,,,\n", "is damaged"),
    ],
)
def test_damaged_projects(name, content, message, place, capfd):
    (place / "project" / name).write_text(content)
    refuse(place, capfd, ["query", "--project", "project"], message)


def test_a_failure_keeps_the_answers_that_were_mended(place, capsys, monkeypatch):
    """The README says to mend not_taken.csv and to give that very file."""
    images = asked(1)
    label(write_answers("first.csv", [(image, "drak") for image in images]))
    mended = write_answers("project/not_taken.csv", [(image, "dark") for image in images])
    before = Path(mended).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Project, "write_given", full)
        assert label(mended) == 2
    assert Path(mended).read_bytes() == before
    capsys.readouterr()
    label(mended)
    assert counts(capsys.readouterr().out) == {"new": 5}
    assert rows(mended) == []
