"""What a project knows of itself: weights that are whole, settings that were edited, work begun."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import refuse
from damage import flip
from labelling_project import FILES, begin, fill_in, step, write_images

from vaal_ext.cli.app import main
from vaal_ext.files import reading
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.project import Project

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

PREDICT = ["predict", "--project", "project", "--out", "x.csv"]
CONFIG = Path("project/config.json")


@pytest.fixture
def trained(place):
    begin()
    step("label", fill_in(1))
    step("train")
    return place


# --- the weights ------------------------------------------------------------------------------


def test_the_weights_are_proved_once_a_command_and_once_where_they_are_used(
    trained, monkeypatch, capsys
):
    proved = []
    real = reading._require_whole
    monkeypatch.setattr(reading, "_require_whole", lambda file: proved.append(1) or real(file))
    for command, times in (
        (["train"], 1),  # nothing to do
        (["predict", "--out", "x.csv"], 1),
        (["query"], 2),  # whether it is due, and to score with
        (["label", fill_in(1)], 1),
    ):
        proved.clear()
        step(*command)
        assert len(proved) == times, command
    fill_in(2)
    step("label", "project/query_2.csv")
    proved.clear()
    step("train")  # which has made them
    assert not proved
    assert capsys.readouterr().out.endswith("next: vaal-ext query --project project\n")


def test_predict_with_damaged_weights_says_what_is_wrong_and_one_way_out(trained, capfd):
    weights = Path("project/weights_1.pt")
    whole = weights.read_bytes()
    flip(weights, len(whole) // 2)
    error = refuse(trained, capfd, PREDICT, "weights_1.pt is damaged, ", begun=True)
    assert error.count("vaal-ext train makes it again") == 1
    assert "have changed" not in error
    assert "Delete" not in error
    weights.unlink()
    refuse(trained, capfd, PREDICT, "is gone: vaal-ext train makes it again", begun=True)
    step("train")
    assert weights.read_bytes() == whole  # as it was told
    step(*PREDICT[:1], *PREDICT[3:])


def test_weights_that_do_not_fit_are_to_be_deleted(trained, capfd):
    write_images(Path("images"), FILES, size=(20, 20))  # another network for larger images
    message = "does not fit the network: "
    assert "Delete it" in refuse(trained, capfd, PREDICT, message, begun=True)


# --- the settings -----------------------------------------------------------------------------


def changed(**settings: object) -> None:
    CONFIG.write_text(json.dumps(json.loads(CONFIG.read_text()) | settings))


def test_an_edit_of_the_settings_is_told_once_and_holds(trained, capfd):
    capfd.readouterr()
    changed(held_out=0.6, query_size=7)
    step("query")
    said = capfd.readouterr().err.splitlines()
    assert (
        "warning: project/config.json was edited or damaged since the last command: "
        "held_out was 0.2 and is 0.6, query_size was 5 and is 7"
    ) in said
    step("label", fill_in(1))
    assert "was edited" not in capfd.readouterr().err
    changed()  # written by another program, which lays it out otherwise
    step("label", fill_in(1))
    assert capfd.readouterr().err == ""
    assert Project(Path("project")).config.held_out == 0.6


def test_a_flipped_bit_is_told(trained, capfd):
    text = CONFIG.read_text()
    at = text.index('"held_out": 0.2') + len('"held_out": 0.')
    content = bytearray(CONFIG.read_bytes())
    content[at] ^= 4
    CONFIG.write_bytes(content)
    capfd.readouterr()
    step("train")
    assert "held_out was 0.2 and is 0.6" in capfd.readouterr().err


def test_a_project_of_before_is_read_and_kept_from_then_on(trained, capfd):
    Path("project/.config.json").unlink()
    Path("project/.checksums.json").unlink()
    changed(held_out=0.6)
    capfd.readouterr()
    step("label", fill_in(1))
    assert "was edited" not in capfd.readouterr().err  # nobody can know
    changed(held_out=0.3)
    step("label", fill_in(1))
    assert "held_out was 0.6 and is 0.3" in capfd.readouterr().err
    kept = json.loads(Path("project/.config.json").read_text())
    del kept["eps"]  # as if this version had a setting that the last one did not know
    Path("project/.config.json").write_text(json.dumps(kept))
    Path("project/.checksums.json").unlink()
    step("label", fill_in(1))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("recorded", [True, False])
def test_what_is_kept_of_the_settings_is_itself_proved(recorded, trained, capfd):
    if recorded:
        flip(Path("project/.config.json"), 40)
        message = r".config.json is damaged or was edited, it is not what was written: delete it"
    else:
        Path("project/.config.json").write_text("[1]")
        Path("project/.checksums.json").unlink()
        message = ".config.json is damaged, it holds no settings: delete it"
    refuse(trained, capfd, ["label", "--project", "project", fill_in(1)], message)
    Path("project/.config.json").unlink()
    step("label", fill_in(1))


# --- what is begun ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["query"], "looking for what project is to ask next, among the images in .*/images"),
        (["train"], "training on the labels of project, of images in .*/images"),
        (["predict", "--out", "x.csv"], "predicting the images in .*/images by project, to x.csv"),
    ],
)
def test_it_says_at_once_what_it_does(command, message, trained, monkeypatch, capfd):
    """Before it looks for the images, which may be a million on a slow disk."""
    told = []
    real = ImageFiles.__init__

    def watched(self, *arguments, **settings):
        told.append(capfd.readouterr().err)
        real(self, *arguments, **settings)

    capfd.readouterr()
    monkeypatch.setattr(ImageFiles, "__init__", watched)
    step(*command)
    assert re.fullmatch(f"{message}\n", told[0])
    assert told[1:] == [""] * (len(told) - 1)
    assert capfd.readouterr().err == ""  # once


def test_nothing_is_announced_that_is_refused_at_once(place, capfd):
    begin()
    refuse(place, capfd, PREDICT, "no network is trained yet")
    capfd.readouterr()
    assert main(["train", "--project", "project"]) == 2
    assert capfd.readouterr().err.startswith("vaal-ext: there must be a label to train on")
    gone = ["query", "--project", "new", "--data", "folder:none", "--classes", "a,b"]
    refuse(place, capfd, gone, "there is no folder none")
