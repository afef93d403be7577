"""Killed at any instant and called again, a run ends where an undisturbed one ends, bit for bit."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import SMALL, Killed, assert_same, kill_at, without_seconds

from vaal_ext.experiment import provenance
from vaal_ext.experiment.loop import RunConfig, run

pytestmark = pytest.mark.usefixtures("small_models")


def test_killed_at_every_moment(tmp_path, whole, monkeypatch):
    for moment in itertools.count(1):
        out = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            names = kill_at(patch, moment)
            try:
                run(SMALL, out, progress=False)
            except Killed:
                pass
            else:
                break
        run(SMALL, out, progress=False)
        assert_same(whole, out)
    # config; round 0: train, 2 x evaluate, query, state, rounds; then score, pick, scores besides.
    # Config, query and rounds are two files each: their checksum goes before.
    assert len(names) == moment - 1 == 2 * (2 + 8 + 11 + 11)


def test_killed_again_and_again(tmp_path, whole, monkeypatch):
    """Every attempt gets a little further than one finished round takes."""
    out = tmp_path / "run"
    for attempt in range(8):
        with monkeypatch.context() as patch:
            kill_at(patch, 23 + attempt)
            try:
                run(SMALL, out, progress=False)
            except Killed:
                continue
            break
    assert attempt > 1
    assert_same(whole, out)


_SCRIPT = """
import os, signal, sys, torch
sys.path.insert(0, "python_tests/helpers")
from vaal_ext.experiment import each_round
from vaal_ext.experiment.loop import RunConfig, run
from killed_runs import small_model

each_round.model_for = small_model
torch.set_num_threads(int(sys.argv[3]))
name, moment, after = sys.argv[4], int(sys.argv[5]), sys.argv[6] == "after"
real, calls = getattr(os, name), 0

def deadly(*args):
    global calls
    calls += 1
    if calls == moment and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*args)
    if calls == moment:
        os.kill(os.getpid(), signal.SIGKILL)

setattr(os, name, deadly)
run(RunConfig(**eval(sys.argv[1])), sys.argv[2], progress=False)
"""


@pytest.mark.parametrize(
    ("name", "moment", "when"),
    [
        ("fsync", 2, "before"),  # config.json half written: a hidden file lies about
        ("fsync", 11, "before"),  # round 1: state.pt written but not in place
        ("replace", 11, "after"),  # round 1: committed, rounds.csv a row behind
    ],
)
def test_sigkill(name, moment, when, tmp_path, whole):
    out = tmp_path / "run"
    settings = {k: v for k, v in vars(SMALL).items() if v is not None}
    arguments = [repr(settings), out, torch.get_num_threads(), name, moment, when]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    if name == "fsync":
        assert len(list(out.glob(".*.tmp"))) == 1
    else:
        assert len(without_seconds(out / "rounds.csv")) == 1
    run(SMALL, out, progress=False)
    assert_same(whole, out)


def test_a_finished_run_called_again_changes_nothing_and_says_so(whole, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    run(SMALL, whole)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    assert capsys.readouterr().out == f"{whole}: finished before, all 2 rounds\n"


def test_a_regularised_run_resumes(tmp_path, monkeypatch):
    config = replace(SMALL, strategy="vaal+vat")
    run(config, tmp_path / "whole", progress=False)
    out = tmp_path / "run"
    for moment in (10, 22, 28):  # in rounds 0, 1 and 2
        with monkeypatch.context() as patch:
            kill_at(patch, moment)
            with pytest.raises(Killed):
                run(config, out, progress=False)
    run(config, out, progress=False)
    assert_same(tmp_path / "whole", out)


def test_it_says_where_it_goes_on(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        kill_at(patch, 20)
        with pytest.raises(Killed):
            run(SMALL, tmp_path / "run", progress=False)
    run(SMALL, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'run'}: going on after round 0, at least ")
    assert [line[:9] for line in lines[1:]] == ["round 1/2", "round 2/2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"strategy": "random"}, "strategy is 'vaal' there and 'random' here"),
        (
            {"strategy": "vaal+vat"},
            "strategy is 'vaal' there and .*; vat_eps is None there and 0.2 here; ",
        ),
        (
            {"eps": 0.2, "rounds": 3},
            "eps is .* there and 0.2 here; rounds is 2 there and 3 here",
        ),
        ({"class_prior": None}, "class_prior is 'uniform' there and None here"),
    ],
)
def test_a_folder_of_a_different_run_is_refused(change, message, whole):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    with pytest.raises(ValueError, match=f"holds a different run: {message}"):
        run(replace(SMALL, **change), whole, progress=False)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_data_may_move_but_not_change(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    np.savez(tmp_path / "a.npz", x=x, y=y)
    config = replace(
        SMALL,
        dataset=f"npz:{tmp_path / 'a.npz'}",
        pool_size=None,
        data_root=str(tmp_path),
    )
    run(config, tmp_path / "run", progress=False)
    run(replace(config, data_root="elsewhere"), tmp_path / "run", progress=False)
    np.savez(tmp_path / "a.npz", x=x + 1e-3, y=y)
    with pytest.raises(ValueError, match="the data it was made from are not the data here"):
        run(config, tmp_path / "run", progress=False)


def test_other_versions_are_warned_of(whole, monkeypatch):
    newer = provenance.versions() | {"torch": "99"}
    monkeypatch.setattr(provenance, "versions", lambda: newer)
    with pytest.warns(RuntimeWarning, match="may differ from an undisturbed run's"):
        run(SMALL, whole, progress=False)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state.pt", lambda content: b""),
        ("state.pt", lambda content: content[: len(content) // 2]),
        ("state.pt", lambda content: b"not a state"),
        ("config.json", lambda content: b"{"),
        ("config.json", lambda content: b"[]"),
        ("config.json", lambda content: b"\xff"),
    ],
)
def test_damaged_files_are_named(name, damage, whole, tmp_path):
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for lost in (".checksums.json", "rounds.csv"):  # by which they would be made again
        (tmp_path / lost).unlink()
    (tmp_path / name).write_bytes(damage((whole / name).read_bytes()))
    with pytest.raises(ValueError, match=str(tmp_path / name)):
        run(SMALL, tmp_path, progress=False)


def test_a_state_is_never_unpickled(whole, tmp_path):
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"rounds": Bomb()}, tmp_path / "state.pt")
    (tmp_path / "rounds.csv").unlink()  # by which the state would be made again
    with pytest.raises(ValueError, match=r"state\.pt is damaged") as caught:
        run(SMALL, tmp_path, progress=False)
    assert "weights_only" not in str(caught.value)  # torch's advice: how to load it nevertheless
    assert not (tmp_path / "exploded").exists()


def test_another_networks_state_is_refused(whole, tmp_path):
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    state["rounds"], state["labelled"] = state["rounds"][:1], state["labelled"][:6]
    state["weights"] = {"0.weight": torch.zeros(2)}
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"(?s)state\.pt is no state of this run: .*0\.weight"):
        run(SMALL, tmp_path, progress=False)
    for path in whole.glob("*.csv"):  # what is whole is left so
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_config_json_is_what_was_asked(whole):
    saved = json.loads((whole / "config.json").read_text())["config"]
    assert RunConfig(**saved) == SMALL.resolved().settings
    assert RunConfig(**saved).resolved() == SMALL.resolved()


def test_a_run_with_settings_that_its_strategy_does_not_read_goes_on(tmp_path):
    """Earlier versions began one; a new one is refused, unless they are the data set's own."""
    config = replace(SMALL, strategy="random", num_iters=None, rounds=1)
    run(config, tmp_path / "run", progress=False)
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    again = RunConfig(**content["config"])
    run(again, tmp_path / "other", progress=False)  # everything is given, as the table has it
    content["config"] |= {"eps": 0.7, "rounds": 2}
    path.write_text(json.dumps(content))
    (tmp_path / "run" / ".checksums.json").unlink()  # the change is meant
    run(RunConfig(**content["config"]), tmp_path / "run", progress=False)
    assert len(without_seconds(tmp_path / "run" / "rounds.csv")) == 3
    with pytest.raises(ValueError, match=r"eps is for the strategy vaal, got 0\.7 with 'random'"):
        run(RunConfig(**content["config"]), tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()
