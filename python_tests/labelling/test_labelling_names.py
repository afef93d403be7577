"""Names of images and classes as people and programs write them, and Label Studio's exports."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelling_project import (
    CLASSES,
    annotation,
    asked,
    begin,
    rows,
    step,
    truth,
    write_answers,
    write_images,
)

from vaal_ext.labelling.answers import Answer, judge, read_answers
from vaal_ext.labelling.names import Names

COMPOSED = unicodedata.normalize("NFC", "café/00.jpg")
DECOMPOSED = unicodedata.normalize("NFD", "café/00.jpg")


def stored() -> dict[str, str]:
    return {row["image"]: row["label"] for row in rows("project/labels.csv")}


@pytest.mark.parametrize(
    ("there", "written", "found"),
    [
        (["p.png", " p.png"], " p.png", " p.png"),
        (["p.png", " p.png"], "p.png", "p.png"),
        (["p.png", " p.png"], "p.png ", None),
        ([" p.png"], "p.png", " p.png"),  # a program that strips cells
        (["p.png"], "\tp.png ", "p.png"),
        ([DECOMPOSED], COMPOSED, DECOMPOSED),
        ([COMPOSED], DECOMPOSED, COMPOSED),
        ([COMPOSED, DECOMPOSED], COMPOSED, COMPOSED),
        ([COMPOSED, DECOMPOSED], DECOMPOSED, DECOMPOSED),
        ([COMPOSED, DECOMPOSED], f" {COMPOSED}", None),
        ([f" {DECOMPOSED}"], COMPOSED, f" {DECOMPOSED}"),
        ([f" {DECOMPOSED}", DECOMPOSED], COMPOSED, DECOMPOSED),
        (["p.png"], "P.png", None),
        ([], "p.png", None),
    ],
)
def test_a_name_is_found_as_it_is_or_where_only_one_can_be_meant(there, written, found):
    assert Names(there).find(written) == found


@given(st.lists(st.text(" abé\u0301\u00a0/."), max_size=6), st.text(" abé\u0301/."))
def test_what_is_there_is_always_found_as_it_is(there, written):
    names = Names(there)
    assert [names.find(name) for name in there] == there
    found = names.find(written)
    if found is not None:
        assert found in there
        assert unicodedata.normalize("NFC", found).strip() == (
            unicodedata.normalize("NFC", written).strip()
        )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("shelf/A.JPG", "shelf/a.jpg"),
        ("a.jpg", "shelf/a.jpg"),
        ("/home/me/photos/shelf/a.jpg", "shelf/a.jpg"),
        ("C:\\photos\\shelf\\a.jpg", "shelf/a.jpg"),
        ("b.jpg", "b.jpg or b.jpg "),  # differ by a blank from what is there, both
        ("c.jpg", ""),
    ],
)
def test_what_may_have_been_meant_by_an_image(written, meant):
    assert Names(["shelf/a.jpg", "b.jpg", "b.jpg "]).suggestion(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [("Cat", "cat"), ("CATS", "cat"), ("dgo", "dog"), ("Skip", "skip"), ("elephant", "")],
)
def test_what_may_have_been_meant_by_a_class(written, meant):
    (outcome,) = judge([Answer("a", written)], {}, ("cat", "dog"), "a")
    assert (outcome.outcome, outcome.suggestion) == ("unknown class", meant)


def test_a_class_is_found_by_its_composed_name():
    label = unicodedata.normalize("NFD", "été")
    (outcome,) = judge([Answer("a", label)], {}, ("été", "hiver"), "a")
    assert (outcome.outcome, outcome.labels) == ("new", ("été",))


def test_two_spellings_of_one_image_are_one_image():
    answers = [Answer(COMPOSED, "dark"), Answer(DECOMPOSED, "light")]
    (outcome,) = judge(answers, {}, CLASSES, [DECOMPOSED])
    assert (outcome.image, outcome.outcome) == (DECOMPOSED, "conflict")


def test_an_answer_is_stored_for_the_image_it_names(place):
    write_images(Path("images"), [" 00.jpg", DECOMPOSED])
    begin()
    given = [(" 00.jpg", "light"), (COMPOSED, "dark")]
    step("label", write_answers("answers.csv", given))
    assert stored() == {" 00.jpg": "light", DECOMPOSED: "dark"}


def test_a_suggestion_stands_in_the_table_and_on_the_line(place, capsys):
    begin()
    step("label", write_answers("answers.csv", [("00.jpg", "Dark"), ("shelf/00.JPG", "dark")]))
    out = capsys.readouterr().out
    assert "00.jpg: Dark (did you mean dark?)" in out
    assert "shelf/00.JPG: dark (did you mean shelf/00.jpg?)" in out
    assert [tuple(row.values()) for row in rows("project/not_taken.csv")] == [
        ("00.jpg", "Dark", "unknown class", "dark"),
        ("shelf/00.JPG", "dark", "unknown image", "shelf/00.jpg"),
    ]


def test_the_folders_of_a_test_are_named_as_the_classes(place):
    """Whoever wrote their accents."""
    mac = unicodedata.normalize("NFD", "été")
    write_images(Path("test"), [f"{mac}/00.jpg", "hiver/01.jpg"])
    begin(classes="été,hiver", test="folder:test")
    step("label", write_answers("a.csv", [("00.jpg", "été"), ("01.jpg", "hiver")]))
    step("train")
    assert rows("project/trainings.csv")[0]["evaluated"] == "2"


def exported_records() -> list[dict]:
    """What Label Studio's JSON-MIN holds for the query's tasks: what is in the first, labelled.

    One record for each annotation that was not skipped, one for a task that has none: the task's
    data, then what was chosen under the name of its tag; several choices are no string.
    """
    tasks = json.loads(Path("project/query_1.json").read_text())
    end = {"annotator": 1, "annotation_id": 7, "created_at": "2026-01-01", "lead_time": 4.2}
    records = []
    for i, task in enumerate(tasks, 1):
        name = task["data"]["vaal_ext_image"]
        label = {} if i == 2 else {"label": truth(name)}
        if i == 3:
            label = {"label": [{"choices": list(CLASSES)}]}
        records.append(task["data"] | {"id": i} | label | end)
    return records


@pytest.mark.parametrize("form", ["csv", "json"])
def test_the_small_exports_of_label_studio(form, place, capsys):
    write_images(Path("images"), [" 00.jpg", DECOMPOSED])
    begin(query_size="30")
    records = exported_records()
    path = Path(f"export.{form}")
    if form == "json":
        path.write_text(json.dumps(records))
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            for record in records:
                several = not isinstance(record.get("label", ""), str)
                text = {"label": json.dumps(record["label"])} if several else {}
                writer.writerow(record | text)
    step("label", str(path))
    out = capsys.readouterr().out
    images = asked(1)
    assert stored() == {name: truth(name) for i, name in enumerate(images, 1) if i not in (2, 3)}
    assert "  unanswered         1" in out
    assert "  conflict           1" in out
    assert "unknown" not in out


def test_an_export_whose_tasks_were_made_elsewhere(tmp_path):
    path = tmp_path / "export.json"
    path.write_text(json.dumps([{"image": "/data/1.jpg", "label": "dark"}]))
    assert read_answers(path) == [Answer("/data/1.jpg", "dark")]
    path.write_text(json.dumps([{"id": 3, "data": {}, "annotations": [annotation(["dark"])]}]))
    assert read_answers(path) == [Answer("task 3", "dark")]
