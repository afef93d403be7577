"""A run's rounds in TensorBoard's event files, also after a kill."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from killed_runs import SMALL, Killed, kill_at, small_model

from vaal_ext.cli.app import main
from vaal_ext.experiment import each_round
from vaal_ext.experiment.loop import run
from vaal_ext.pool.scores import PoolScores

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    monkeypatch.setattr(each_round, "model_for", small_model)


def events(folder: Path):
    """What TensorBoard would show."""
    shown = accumulator.EventAccumulator(str(folder), {"scalars": 0, "histograms": 0})
    return shown.Reload()


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


def column(out: Path, name: str) -> list[tuple[int, float]]:
    with open(out / "rounds.csv", newline="") as file:
        return [(i, np.float32(row[name])) for i, row in enumerate(csv.DictReader(file))]


def histograms(folder: Path) -> dict[int, tuple[float, float]]:
    """The number of samples and their sum, by round."""
    values = [(e.step, e.histogram_value) for e in events(folder).Histograms("log10 LDR")]
    assert len(values) == len({step for step, _ in values})
    return {step: (value.num, value.sum) for step, value in values}


def assert_all_there(out: Path, log: Path, rounds: int = 2) -> None:
    tags = {
        "accuracy/test": "test_accuracy", "accuracy/validation": "val_accuracy",
        "loss/test": "test_loss", "loss/train": "train_loss", "seconds/train": "train_seconds",
        "seconds/score": "score_seconds", "seconds/select": "select_seconds", "labels": "labels",
    }  # fmt: skip
    assert len(column(out, "labels")) == rounds + 1
    for tag, name in tags.items():
        assert scalars(log, tag) == column(out, name), tag


def test_what_is_logged(tmp_path):
    run(SMALL, tmp_path / "run", progress=False, tensorboard=tmp_path / "log")
    assert_all_there(tmp_path / "run", tmp_path / "log")
    logged = histograms(tmp_path / "log")
    ldr = PoolScores.load(tmp_path / "run" / "scores.npz").ldr
    assert logged.keys() == {1, 2}  # nothing is scored before the first labels
    assert logged[2][0] == len(ldr)
    assert logged[2][1] == pytest.approx(np.log10(ldr.astype(np.float64)).sum(), rel=1e-12)


@pytest.mark.parametrize("moment", range(1, 65, 4))
def test_every_round_is_there_once_after_a_kill(moment, tmp_path, monkeypatch):
    out, log = tmp_path / "run", tmp_path / "log"
    with monkeypatch.context() as patch:
        kill_at(patch, moment)
        with pytest.raises(Killed):
            run(SMALL, out, progress=False, tensorboard=log)
    run(SMALL, out, progress=False, tensorboard=log)
    assert_all_there(out, log)
    whole = tmp_path / "whole"
    run(SMALL, tmp_path / "other", progress=False, tensorboard=whole)
    assert histograms(log) == histograms(whole)


def test_a_log_begun_late_has_all_rounds(tmp_path, monkeypatch):
    out, log = tmp_path / "run", tmp_path / "log"
    run(SMALL, out, progress=False)
    run(SMALL, out, progress=False, tensorboard=log)
    assert_all_there(out, log)
    assert histograms(log).keys() == {2}  # the scores of the last query are what a run keeps
    run(SMALL, out, progress=False, tensorboard=log)  # and again
    assert_all_there(out, log)


@pytest.mark.parametrize(("moment", "lacking"), [(32, set()), (54, {1})])
def test_scores_of_a_query_that_was_not_committed(moment, lacking, tmp_path, monkeypatch):
    """Killed once they are written, and a log only then: they are not those of the last round."""
    out, log = tmp_path / "run", tmp_path / "log"
    with monkeypatch.context() as patch:
        names = kill_at(patch, moment)
        with pytest.raises(Killed):
            run(SMALL, out, progress=False)
    assert names[-3:-1] == ["after evaluate", "before replace"]  # the first file of its round
    assert names[-1] == "after replace"
    run(SMALL, out, progress=False, tensorboard=log)
    run(SMALL, tmp_path / "other", progress=False, tensorboard=tmp_path / "whole")
    whole = histograms(tmp_path / "whole")
    assert histograms(log) == {number: whole[number] for number in whole.keys() - lacking}


def test_the_log_of_another_run_is_refused(tmp_path):
    run(SMALL, tmp_path / "run", progress=False, tensorboard=tmp_path / "log")
    with pytest.raises(ValueError, match="log holds the log of another run"):
        run(replace(SMALL, seed=1), tmp_path / "1", progress=False, tensorboard=tmp_path / "log")
    assert not (tmp_path / "1" / "rounds.csv").exists()  # before any work
    run(replace(SMALL, seed=1), tmp_path / "1", progress=False)
    with pytest.raises(ValueError, match="log holds the log of another run"):
        run(replace(SMALL, seed=1), tmp_path / "1", progress=False, tensorboard=tmp_path / "log")


def test_a_strategy_without_ldr(tmp_path):
    run(
        replace(SMALL, strategy="entropy", num_iters=None),
        tmp_path / "run",
        progress=False,
        tensorboard=tmp_path,
    )
    assert "log10 LDR" not in events(tmp_path).Tags()["histograms"]
    assert_all_there(tmp_path / "run", tmp_path)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = "run --dataset moons --strategy random --rounds 1 --steps 1 --out run --device cpu"
    assert main([*arguments.split(), "--tensorboard", "log"]) == 0
    assert_all_there(Path("run"), Path("log"), rounds=1)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    capsys.readouterr()
    assert main([*arguments.split(), "--tensorboard", "log"]) == 2
    assert "pip install 'vaal_ext[tensorboard]'" in capsys.readouterr().err
