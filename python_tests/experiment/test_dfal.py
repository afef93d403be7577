"""Runs with the strategy dfal: what they query, the twins they train on, and their resumption."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from csv_files import rows
from killed_runs import Killed, assert_same, kill_at

from vaal_ext.cli.app import main
from vaal_ext.experiment import each_round
from vaal_ext.experiment.datasets.load import load_dataset
from vaal_ext.experiment.loop import RunConfig, run
from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.pool.scores import PoolScores
from vaal_ext.strategies import Dfal

# So little training leaves samples from which DeepFool goes in circles.
pytestmark = [
    pytest.mark.usefixtures("small_models"),
    pytest.mark.filterwarnings("ignore:DeepFool reached no other class"),
]

SMALL = RunConfig(
    "moons", "dfal", rounds=2, initial=6, query_size=5, steps=3, pool_size=40, device="cpu",
    backend="reference",
)  # fmt: skip


def watched_training(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What every training of the loop is given."""
    given, real = [], each_round.train

    def train(model, x, y, **options):
        given.append((x.clone(), y.clone()))
        return real(model, x, y, **options)

    monkeypatch.setattr(each_round, "train", train)
    return given


@pytest.mark.parametrize("strategy", ["dfal", "dfal+vat"])
def test_twins_are_trained_on_with_the_labels_of_their_originals(strategy, tmp_path, monkeypatch):
    given = watched_training(monkeypatch)
    run(replace(SMALL, strategy=strategy), tmp_path, progress=False)
    data = load_dataset("moons", None, stream_seed(0, Stream.SPLIT))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert [int(row["labels"]) for row in rows(tmp_path / "rounds.csv")] == [6, 11, 16]
    x, of = state["twins"]["x"], state["twins"]["of"]
    queried = [int(row["index"]) for n in (1, 2) for row in rows(tmp_path / f"query_00{n}.csv")]
    assert of.tolist() == queried  # every one of them crosses
    assert [len(y) for _, y in given] == [6, 16, 26]
    assert torch.equal(given[-1][0], torch.cat([data.train_x[state["labelled"]], x]))
    assert torch.equal(given[-1][1], data.train_y[torch.cat([state["labelled"], of])])
    # A twin lies as far from its original as the score said, which was rounded to float32.
    norms = [
        row["perturbation_norm"] for n in (1, 2) for row in rows(tmp_path / f"query_00{n}.csv")
    ]
    distance = (x - data.train_x[of]).norm(dim=1)
    assert np.allclose(distance, np.array(norms, dtype=float), rtol=1e-3, atol=1e-6)
    scores = PoolScores.load(tmp_path / "scores.npz")
    threshold = np.sort(scores.perturbation_norm)[4]
    assert all(float(norm) <= threshold for norm in norms[5:])


def test_without_twins(tmp_path, monkeypatch):
    given = watched_training(monkeypatch)
    run(replace(SMALL, twins=False), tmp_path, progress=False)
    assert [len(y) for _, y in given] == [6, 11, 16]
    assert "twins" not in torch.load(tmp_path / "state.pt", weights_only=True)
    with pytest.raises(ValueError, match="twins is False there and True here"):
        run(SMALL, tmp_path, progress=False)


def test_killed_at_every_moment_of_the_last_round(tmp_path, monkeypatch):
    """When there are twins of the round before to keep; test_resume.py has the rounds before."""
    run(SMALL, tmp_path / "whole", progress=False)
    first, after = 2 * (2 + 8 + 11) + 1, 2 * (2 + 8 + 11 + 11) + 1  # moments, as counted there
    for moment in range(first, after + 1):
        out = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            names = kill_at(patch, moment, Dfal)
            try:
                run(SMALL, out, progress=False)
            except Killed:
                pass
            else:
                break
        run(SMALL, out, progress=False)
        assert_same(tmp_path / "whole", out)
    assert moment == after
    assert len(names) == after - 1


def test_twins_belong_to_dfal():
    assert RunConfig("digits", "dfal+vat").resolved().strategy.twins is True
    # None, as in the folders of runs that were begun when there was no such setting.
    assert RunConfig("digits", "vaal").resolved().settings.twins is None
    with pytest.raises(ValueError, match="twins is for the strategy dfal, got 'vaal'"):
        RunConfig("digits", "vaal", twins=True).resolved()
    with pytest.raises(TypeError, match="twins must be True or False, got 1"):
        RunConfig("digits", "dfal", twins=1).resolved()


def test_from_the_command_line_to_the_report(tmp_path, capsys):
    out = tmp_path / "dfal"
    options = ["--rounds", "1", "--initial", "6", "--query-size", "5", "--steps", "3"]
    arguments = ["run", "--dataset", "moons", "--strategy", "dfal", "--out", str(out), *options]
    assert main([*arguments, "--no-twins", "--pool-size", "40"]) == 0
    assert json.loads((out / "config.json").read_text())["config"]["twins"] is False
    assert main(["report", str(out), "--out", str(tmp_path / "report")]) == 0
    assert "dfal" in capsys.readouterr().out
    assert not list((tmp_path / "report").glob("ldr_*"))
