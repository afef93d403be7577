"""What a project meets: tables that are lost, images that cannot be read, a beginning that failed,
an old spreadsheet, a slip in the settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import refuse
from labelling_project import FILES, begin, fill_in, rows, step, write_images

from vaal_ext.labelling.answers import read_answers
from vaal_ext.labelling.tables import read_rows

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")


def edit_settings(**changes: str) -> None:
    path = Path("project/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("table", ["queries.csv", "labels.csv", "trainings.csv"])
def test_a_lost_table_is_missed(table, place, capfd):
    """Each was written twice: after the first time a kill may have left the record alone."""
    begin()
    for number in (1, 2):
        step("label", fill_in(number))
        step("train")
        step("query")
    Path("project", table).unlink()
    command = ["train" if table == "trainings.csv" else "query", "--project", "project"]
    refuse(place, capfd, command, f"project/{table} is missing: put back a copy")
    Path("project/.checksums.json").unlink()
    assert read_rows(Path("project", table), type("Row", (), {})) == []


def test_a_labelled_image_that_cannot_be_read_is_listed(place, capfd):
    begin(on_unreadable="skip", held_out="0")
    step("label", fill_in(1))
    broken = rows("project/query_1.csv")[0]["image"]
    Path("images", broken).write_bytes(b"")
    capfd.readouterr()
    step("train")
    said = capfd.readouterr()
    assert "warning: 1 labelled images cannot be read, and are left out" in said.err
    assert broken in said.err


def test_images_that_were_left_out_are_missed_once_that_is_no_longer_asked_for(place, capfd):
    begin(on_unreadable="skip", held_out="0")
    step("label", fill_in(1))
    broken = Path("images", rows("project/query_1.csv")[0]["image"])
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    step("train")
    edit_settings(on_unreadable="raise")
    command = ["train", "--project", "project"]
    refuse(place, capfd, command, f"{broken} is no readable image", begun=True)
    step("label", "project/query_1.csv")
    assert capfd.readouterr().out.endswith("next: vaal-ext train --project project\n")
    edit_settings(on_unreadable="skip")
    step("train")
    assert "training 1 was on these labels: nothing to do" in capfd.readouterr().out
    edit_settings(on_unreadable="raise")
    broken.write_bytes(whole)
    for _ in range(2):
        step("train")
    assert "training 2 was on these labels: nothing to do" in capfd.readouterr().out
    assert [row["labels"] for row in rows("project/trainings.csv")] == ["4", "5"]
    assert Path("project/weights_1.pt").exists()


@pytest.mark.parametrize("evaluated", [{"held_out": "0.5"}, {"test": "folder:test"}])
def test_where_nothing_was_left_out_the_training_stays(evaluated, place, capfd):
    write_images(Path("test/dark"), ["00.jpg"])
    begin(on_unreadable="skip", **evaluated)
    step("label", fill_in(1))
    step("train")
    edit_settings(on_unreadable="raise")
    step("train")
    assert "training 1 was on these labels: nothing to do" in capfd.readouterr().out


def test_an_image_of_the_test_folder_that_cannot_be_read_is_listed(place, capfd):
    write_images(Path("test/dark"), ["00.jpg", "02.jpg"])
    Path("test/dark/02.jpg").write_bytes(b"")
    begin(on_unreadable="skip", test="folder:test")
    step("label", fill_in(1))
    step("train")
    said = capfd.readouterr()
    assert "warning: 1 images of the test folder cannot be read, and are left out" in said.err
    assert "02.jpg" in said.err


@pytest.mark.parametrize(
    ("files", "size", "message"),
    [
        (["dim/00.jpg"], (8, 8), "must be named as the project's classes, got dim"),
        (["00.jpg"], (8, 8), "must be named as the project's classes, got 00.jpg"),
        (["dark/00.jpg"], (8, 9), "must have the shape of the project's, [3, 8, 8], got [3, 8, 9]"),
        ([], (8, 8), "there is no image in"),
    ],
)
def test_a_test_folder_that_is_no_good_is_found_before_anybody_labels(
    files, size, message, place, capfd
):
    Path("test").mkdir()
    write_images(Path("test"), files, size=size)
    assert begin(test="folder:test") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line
    assert not Path("project").exists()


def test_a_beginning_that_failed_takes_what_is_given_next(place, capfd):
    write_images(Path("images"), ["98.jpg"], size=(12, 20))
    asked = len(FILES) + 1
    assert begin(query_size=str(asked)) == 2
    assert "give an image size" in capfd.readouterr().err
    assert begin(query_size=str(asked), image_size="8") == 0
    said = capfd.readouterr()
    assert "edited" not in said.err  # of nobody's edit
    assert len(rows("project/query_1.csv")) == asked
    assert begin(image_size="16") == 2  # now it has asked
    assert "the project's image_size is 8, the command says 16" in capfd.readouterr().err


def test_lines_of_an_old_mac_are_read(tmp_path):
    """Excel's "CSV (Macintosh)" ends them with a carriage return alone."""
    path = tmp_path / "answers.csv"
    path.write_bytes(b"image;label\ra.png;cat\rb c.png;\r")
    found = [(answer.image, answer.label) for answer in read_answers(path)]
    assert found == [("a.png", "cat"), ("b c.png", "")]
    path.write_bytes(b'image,label\n"a\rb.png",cat\nc\r.png,dog\n')
    with pytest.raises(ValueError, match=r"answers.csv, line \d+: new-line character"):
        read_answers(path)


def test_a_slip_in_the_settings_is_answered_with_what_was_meant(place, capfd):
    begin()
    config = Path("project/config.json")
    settings = json.loads(config.read_text())
    settings["sed"] = settings.pop("seed")
    config.write_text(json.dumps(settings))
    message = "a project has no setting 'sed' (did you mean seed?); it has images, classes"
    assert ", steps" in refuse(place, capfd, ["query", "--project", "project"], message)
