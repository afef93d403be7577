"""A run with a flipped bit in one of its files: refused in a line, or as if nothing had been."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import make_place, refuse, run_arguments
from damage import flip, flipped
from killed_runs import SMALL, assert_same, without_seconds
from made_runs import make_run

from vaal_ext.cli.app import main
from vaal_ext.experiment.each_round import Experiment
from vaal_ext.experiment.loop import run
from vaal_ext.experiment.state import read_state
from vaal_ext.files.checksums import read_recorded, write_recorded
from vaal_ext.report.runs import load_run

pytestmark = pytest.mark.usefixtures("small_models")

FILES = (
    ".checksums.json", "config.json", "query_000.csv", "query_001.csv", "query_002.csv",
    "rounds.csv", "scores.npz", "state.pt",
)  # fmt: skip


@pytest.fixture
def out(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def content(folder):
    """Everything that a report reads of a run."""
    found = load_run(folder)
    numbers = found.labels, found.accuracy, found.val_accuracy, found.test_loss, found.train_loss
    scores = found.scores()
    columns = scores.index, scores.ldr, scores.pseudo_label, scores.entropy, scores.margin
    return (
        found.config, found.data_sha256, found.queries(800),
        *(array.tobytes() for array in (*numbers, *columns)),
    )  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_report_reads_what_was_written_or_refuses(name, whole, out):
    expected = content(whole)
    refusals = []
    for place in flipped(out / name, 40):
        try:
            assert content(out) == expected, place
        except ValueError as error:
            refusals.append(str(error))
    assert all(str(out) in text and "\n" not in text for text in refusals)
    refused = len(refusals)
    # What is left: bytes of a zip that say nothing; of state.pt nothing is read.
    assert (refused == 0) if name == "state.pt" else (refused > 30)


@pytest.mark.parametrize("name", [name for name in FILES if name != "query_001.csv"])
def test_a_run_called_again_ends_where_it_ended_or_refuses(name, whole, out):
    for _ in flipped(out / name, 10):
        before = (out / name).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of what was made again
            try:
                run(SMALL, out, progress=False)
            except ValueError:
                assert name == ".checksums.json"  # all else can be made again
                continue
        if name == "scores.npz":  # what the next query would write anew
            assert (out / name).read_bytes() == before
            (out / name).write_bytes((whole / name).read_bytes())
        assert_same(whole, out)


def test_a_label_of_another_sample_does_not_pass(out):
    """The report's case: labelled[0], 6, became 70, and the run went on."""
    state = torch.load(out / "state.pt", weights_only=True)
    first = int(state["labelled"][0])
    wanted = state["labelled"].numpy().tobytes()
    data = bytearray((out / "state.pt").read_bytes())
    data[data.index(wanted)] ^= 64
    (out / "state.pt").write_bytes(data)
    assert int(torch.load(out / "state.pt", weights_only=True)["labelled"][0]) == first ^ 64
    with pytest.raises(ValueError, match="does not have its checksum"):
        read_state(out / "state.pt")
    with pytest.warns(RuntimeWarning, match=r"state\.pt is damaged: it is made again, by the"):
        run(SMALL, out, progress=False)
    assert int(read_state(out / "state.pt").labelled[0]) == first


def test_that_a_training_is_done_again_is_said_before_it_begins(out, monkeypatch):
    flip(out / "state.pt", len((out / "state.pt").read_bytes()) // 2)
    real, said = Experiment.learn, []

    def learn(*arguments):
        said.append([str(warning.message) for warning in warned])
        return real(*arguments)

    monkeypatch.setattr(Experiment, "learn", learn)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run(SMALL, out, progress=False)
    text = f"{out / 'state.pt'} is damaged: it is made again, by the training of round 2 done once"
    assert said == [[f"{text} more"]]
    assert len(warned) == 1


def test_a_state_that_cannot_be_made_again_is_refused(tmp_path):
    """With warm starts the network of the round before is part of it."""
    config = replace(SMALL, warm_start=True)
    run(config, tmp_path, progress=False)
    flip(tmp_path / "state.pt", len((tmp_path / "state.pt").read_bytes()) // 2)
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(ValueError, match="Put back a copy of it, or delete it, and the run begins"):
        run(config, tmp_path, progress=False)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_a_state_is_not_made_from_other_labels(out):
    """Of an earlier version's folder, whose tables have no checksums, the training is the proof."""
    (out / ".checksums.json").unlink()
    flip(out / "state.pt", -40)
    query = out / "query_000.csv"
    lines = query.read_text().splitlines()
    query.write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]) + "\n")
    with (
        pytest.warns(RuntimeWarning, match="training of round 2 done once more"),
        pytest.raises(ValueError, match=r"state\.pt is damaged"),
    ):
        run(SMALL, out, progress=False)


def test_a_damaged_query_is_written_again(out, whole):
    flip(out / "query_001.csv", -3)
    with pytest.warns(RuntimeWarning, match=r"query_001\.csv .* from state\.pt, without scores"):
        run(SMALL, out, progress=False)
    one, other = (load_run(folder).queries() for folder in (whole, out))
    assert [index for index, _ in one[1]] == [index for index, _ in other[1]]
    assert [guess for _, guess in other[1]] == [""] * 5
    (out / "query_002.csv").unlink()
    with pytest.warns(RuntimeWarning, match=r"query_002\.csv .* from state\.pt$"):
        run(SMALL, out, progress=False)
    assert (out / "query_002.csv").read_bytes() == (whole / "query_002.csv").read_bytes()


def test_a_run_of_an_earlier_version_is_read(out, whole):
    (out / ".checksums.json").unlink()
    assert content(out) == content(whole)
    run(SMALL, out, progress=False)
    flip(out / "rounds.csv", -5)
    run(SMALL, out, progress=False)  # from the state
    assert without_seconds(out / "rounds.csv") == without_seconds(whole / "rounds.csv")


def change(state, name, value):
    state[name] = value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: change(s, "labelled", s["labelled"].float()), "int64"),
        (lambda s: change(s, "labelled", s["labelled"] - 800), "must not be negative"),
        (lambda s: change(s, "labelled", s["labelled"][:-1]), "16 different samples, got 15"),
        (lambda s: change(s, "labelled", s["labelled"][[0, *range(15)]]), "got 15 among 16"),
        (lambda s: change(s, "labelled", s["labelled"][None]), "int64"),
        (lambda s: change(s, "rounds", []), "holds no round"),
        (lambda s: change(s, "rounds", s["rounds"][1:]), "no round 0 is like"),
        (lambda s: s["rounds"][1].update(test_accuracy=1.5), "no round 1 is like"),
        (lambda s: s["rounds"][1].update(labels=6), "no round 1 is like"),
        (lambda s: s["rounds"][1].update(train_loss=float("nan")), "no round 1 is like"),
        (lambda s: s["rounds"][1].update(labels="7"), "labels of round 1 is '7'"),
        (lambda s: s["weights"]["1.weight"].fill_(float("nan")), "holds NaN"),
        (lambda s: change(s, "weights", [1]), "weights must be tensors"),
        (lambda s: change(s, "twins", {"x": torch.ones(1), "of": torch.tensor([-1])}), "negative"),
        (lambda s: change(s, "twins", {"x": torch.ones(1), "of": torch.tensor([799])}), "twin"),
        (lambda s: s.pop("labelled"), "it lacks 'labelled'"),
    ],
)
def test_states_that_no_run_was_ever_in(damage, message, out):
    state = torch.load(out / "state.pt", weights_only=True)
    state["weights"] = {"1.weight": torch.ones(2, 2), **state["weights"]}
    damage(state)
    torch.save(state, out / "state.pt")
    with pytest.raises(ValueError, match=message) as caught:
        read_state(out / "state.pt")
    assert str(out / "state.pt") in str(caught.value)


def test_a_state_of_another_budget_or_pool_is_refused(out):
    (out / "rounds.csv").unlink()
    state = torch.load(out / "state.pt", weights_only=True)
    state["labelled"][3] = 800
    torch.save(state, out / "state.pt")
    queries = {path: path.read_bytes() for path in out.glob("query_*.csv")}
    with pytest.raises(ValueError, match="16 labels after 3 rounds, up to sample 800 of 800"):
        run(SMALL, out, progress=False)
    assert queries == {path: path.read_bytes() for path in out.glob("query_*.csv")}


@pytest.mark.parametrize(("index", "name"), [("-5", "-5"), ("1000", "1000 of 1000")])
def test_a_query_of_no_sample_is_refused_by_the_report(index, name, tmp_path, monkeypatch, capfd):
    pytest.importorskip("matplotlib")
    place = make_place(tmp_path, monkeypatch)
    folder = make_run(place / "r", [0.5, 0.6, 0.7])
    query = folder / "query_001.csv"
    query.write_text(query.read_text().replace("20,", f"{index},", 1))
    assert main(["report", "r", "--out", "report"]) == 2
    error = capfd.readouterr().err
    assert f"query_001.csv is damaged: there is no sample {name}. vaal-ext run" in error
    assert error.count("\n") == 1


def test_json_nested_without_end(tmp_path, monkeypatch, capfd):
    place = make_place(tmp_path, monkeypatch)
    assert main(run_arguments()) == 0
    Path("run/.checksums.json").unlink()
    Path("run/config.json").write_text("[" * 100_000)
    refuse(place, capfd, run_arguments(), "run/config.json is not the configuration of a run")


def test_a_record_knows_what_a_kill_leaves(tmp_path):
    """Both the old content and the new one are whole; a third is not."""
    path = tmp_path / "table.csv"
    write_recorded(path, b"one")
    for content in (b"two", b"three"):
        old = path.read_bytes()
        write_recorded(path, content)
        for there in (old, content):
            path.write_bytes(there)
            assert read_recorded(path) == there.decode()
    path.write_bytes(b"one")
    with pytest.raises(ValueError, match=r"table\.csv is damaged or was edited"):
        read_recorded(path)
    record = json.loads((tmp_path / ".checksums.json").read_text())
    assert list(record["files"]) == ["table.csv"]
    (tmp_path / "other").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="other is damaged"):
        read_recorded(tmp_path / "other")
