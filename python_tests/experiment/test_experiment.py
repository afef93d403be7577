"""The active-learning loop: what a run does, what it writes and what it refuses."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from csv_files import rows as read
from hypothesis import given
from hypothesis import strategies as st
from other_process import locked_elsewhere
from torch import nn

from vaal_ext.experiment import provenance
from vaal_ext.experiment.datasets.load import DataSplit, load_dataset
from vaal_ext.experiment.defaults import SETTINGS
from vaal_ext.experiment.each_round import initial_indices
from vaal_ext.experiment.loop import RunConfig, run
from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.experiment.state import Round
from vaal_ext.experiment.training import evaluate
from vaal_ext.files.claim import FolderInUseError
from vaal_ext.network.device import device_named
from vaal_ext.pool import fingerprint
from vaal_ext.pool.scores import PoolScores
from vaal_ext.selection import percentile_rank

SMALL = RunConfig(
    "moons", "vaal", rounds=2, initial=6, query_size=5, steps=5, num_iters=1, device="cpu",
    backend="reference",
)  # fmt: skip


def test_a_run_writes_what_it_says(tmp_path, capsys):
    out = tmp_path / "deep" / "run"
    run(SMALL, out)
    files = ["query_000.csv", "query_001.csv", "query_002.csv"]
    assert sorted(p.name for p in out.iterdir()) == (
        [".checksums.json", ".lock", "config.json", *files, "rounds.csv", "scores.npz", "state.pt"]
    )
    rounds = read(out / "rounds.csv")
    assert list(rounds[0]) == [field.name for field in fields(Round)]
    assert [(row["round"], row["labels"]) for row in rounds] == [
        ("0", "6"),
        ("1", "11"),
        ("2", "16"),
    ]
    assert rounds[0]["score_seconds"] == rounds[0]["select_seconds"] == "0.0"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # what is run, and the rounds
    accuracy = 100 * float(rounds[2]["test_accuracy"])
    assert lines[3].startswith(f"round 2/2  16 labels  test accuracy {accuracy:.2f}%  loss ")
    assert all(word in lines[3] for word in ("training", "scoring", "selecting"))

    config = json.loads((out / "config.json").read_text())
    assert set(config) == {"config", "data_sha256", "versions", "commit"}
    assert config["config"]["eps"] == SETTINGS["moons"].eps  # nothing is left open
    assert set(config["versions"]) == {"vaal_ext", "torch", "numpy", "python"}

    queries = [read(out / name) for name in files]
    labelled = [int(row["index"]) for query in queries for row in query]
    assert [len(query) for query in queries] == [6, 5, 5]
    assert len(set(labelled)) == 16
    assert queries[0][0]["ldr"] == ""
    scores = PoolScores.load(out / "scores.npz")
    assert set(scores.index.tolist()) == set(range(800)) - set(labelled[:11])
    ranks = percentile_rank(scores.ldr)
    for row in queries[2]:
        at = scores.index.tolist().index(int(row["index"]))
        for column in ("ldr", "entropy", "margin", "pseudo_label"):
            assert np.float32(row[column]) == getattr(scores, column)[at]
        assert float(row["percentile_rank"]) == pytest.approx(ranks[at], rel=1e-8)

    state = torch.load(out / "state.pt", weights_only=True)
    assert state["labelled"].tolist() == labelled
    # The saved weights are those of the last row.
    data = load_dataset("moons", seed=stream_seed(0, Stream.SPLIT))
    net = nn.Sequential(
        nn.Linear(2, 1024),
        nn.ReLU(),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Linear(1024, 2),
    )
    weights = state["weights"].values()
    for parameter, value in zip(net.parameters(), weights, strict=True):
        parameter.data.copy_(value)
    assert evaluate(net, data.test_x, data.test_y)[0] == float(rounds[2]["test_accuracy"])


@pytest.mark.parametrize("strategy", ["random", "entropy", "margin"])
def test_every_strategy_starts_from_the_same_labels_and_weights(strategy, tmp_path):
    config = replace(SMALL, rounds=1)
    run(config, tmp_path / "vaal", progress=False)
    run(replace(config, strategy=strategy, num_iters=None), tmp_path / strategy, progress=False)
    first, other = ((tmp_path / name) for name in ("vaal", strategy))
    assert (first / "query_000.csv").read_bytes() == (other / "query_000.csv").read_bytes()
    numbers = ("test_accuracy", "test_loss", "val_accuracy", "train_loss")
    one, two = read(first / "rounds.csv")[0], read(other / "rounds.csv")[0]
    # The loss of the trained network to its last bit: the weights it began with were the same.
    assert [one[name] for name in numbers] == [two[name] for name in numbers]
    assert (first / "query_001.csv").read_bytes() != (other / "query_001.csv").read_bytes()
    assert (other / "scores.npz").exists() == (strategy != "random")
    if strategy == "random":
        assert read(other / "query_001.csv")[0]["entropy"] == ""
    else:
        row = read(other / "query_001.csv")[0]
        assert row["ldr"] == row["percentile_rank"] == ""
        assert float(row["entropy"]) > 0


def test_seeds_change_everything(tmp_path):
    for seed in (0, 1):
        run(replace(SMALL, seed=seed, rounds=1), tmp_path / str(seed), progress=False)
    zero, one = tmp_path / "0", tmp_path / "1"
    for name in ("query_000.csv", "query_001.csv", "rounds.csv"):
        assert (zero / name).read_bytes() != (one / name).read_bytes()


def test_a_run_that_another_process_is_at_is_refused(tmp_path):
    run(SMALL, tmp_path / "run", progress=False)
    with locked_elsewhere(tmp_path / "run") as other:
        with pytest.raises(FolderInUseError, match="another process is at the run"):
            run(SMALL, tmp_path / "run", progress=False)
        other.kill()  # which lets go of it
    run(SMALL, tmp_path / "run", progress=False)


def test_numbers_of_numpy_are_settings_too(tmp_path):
    config = replace(SMALL, seed=np.int64(3), eps=np.float32(0.5), rounds=np.int32(1))
    run(config, tmp_path / "run", progress=False)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (saved["seed"], saved["eps"], saved["rounds"]) == (3, 0.5, 1)


def test_a_folder_is_begun_under_its_lock(tmp_path):
    """What another process is writing there is neither taken for a foreign file nor removed."""
    run(SMALL, tmp_path / "run", progress=False)
    (tmp_path / "run" / "config.json").unlink()
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    being_written = tmp_path / "run" / ".0123456789abcdef.tmp"
    being_written.touch()
    with locked_elsewhere(tmp_path / "run"), pytest.raises(FolderInUseError):
        run(SMALL, tmp_path / "run", progress=False)
    assert being_written.exists()
    assert not (tmp_path / "run" / "config.json").exists()
    run(SMALL, tmp_path / "run", progress=False)
    assert not being_written.exists()


def test_the_global_generators_are_left_alone(tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    run(replace(SMALL, rounds=1), tmp_path / "run", progress=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_pool_size_scores_a_fresh_part_in_every_round(tmp_path):
    seen = []
    for rounds in (1, 2):
        out = tmp_path / str(rounds)
        run(replace(SMALL, pool_size=50, rounds=rounds), out, progress=False)
        scores = PoolScores.load(out / "scores.npz")
        assert scores.num_samples == 50
        assert (np.diff(scores.index) > 0).all()
        queried = {int(row["index"]) for row in read(out / f"query_00{rounds}.csv")}
        assert queried <= set(scores.index.tolist())
        seen.append(set(scores.index.tolist()))
    assert seen[0] != seen[1]


def test_the_pool_may_be_used_up(tmp_path):
    config = replace(SMALL, strategy="random", num_iters=None, initial=796, query_size=2)
    run(config, tmp_path / "run", progress=False)
    assert read(tmp_path / "run" / "rounds.csv")[-1]["labels"] == "800"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"dataset": "cifar"},
            ValueError,
            "cifar10, npz:PATH, folder:PATH, got 'cifar'",
        ),
        ({"strategy": "best"}, ValueError, r"random, .*, typiclust, got 'best'"),
        (
            {"initial": 791},
            ValueError,
            "791 initial .* are 801 labels; .* has 800 samples",
        ),
        ({"initial": 0}, ValueError, "initial must be at least 1"),
        ({"rounds": 0}, ValueError, "rounds must be at least 1"),
        ({"query_size": 2.5}, TypeError, "query_size must be an int"),
        (
            {"pool_size": 4},
            ValueError,
            "query_size must be at most pool_size, got 5 and 4",
        ),
        ({"seed": -1}, ValueError, "seed must be in 0"),
        ({"method": "finite-difference", "xi": -1.0}, ValueError, "xi must be finite and above 0"),
        # The command refuses the same options.
        ({"strategy": "random", "eps": 0.3}, ValueError, "eps is for the strategy vaal, got 0.3"),
        ({"strategy": "dfal+vat"}, ValueError, "num_iters is for the strategy vaal, got 1 with"),
        (
            {"strategy": "margin", "num_iters": None, "class_prior": None},
            ValueError,
            "class_prior is for the strategy vaal, got None with 'margin'",
        ),
        ({"percentile": 100.0}, ValueError, "nothing ranks above it"),
        ({"class_prior": [1, 1, 1]}, ValueError, "each of the 2 classes, got 3"),
        (
            {"learning_rate": 0.0},
            ValueError,
            "learning_rate must be finite and above 0",
        ),
        ({"learning_rate": True}, TypeError, "learning_rate must be a number"),
        ({"class_prior": 5}, TypeError, "class_prior must be a string, weights or None, got 5"),
        ({"strategy": None}, TypeError, "strategy must be a string, got None"),
        ({"dataset": None}, TypeError, "dataset must be a string, got None"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"device": "tpu"}, ValueError, "device must be cpu, cuda or cuda:N, got 'tpu'"),
        ({"backend": "fast"}, ValueError, "backend must be 'fused' or 'reference'"),
        ({"dataset": "mnist"}, ValueError, "needs a data root"),
        (
            {"dataset": "mnist", "data_root": "/nowhere"},
            FileNotFoundError,
            "/nowhere/MNIST/raw",
        ),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(change, error, message, tmp_path):
    with pytest.raises(error, match=message):
        run(replace(SMALL, **change), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_takes_the_devices_that_scoring_takes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("cpu", "cuda", "cuda:1"):
        assert device_named(name) == torch.device(name)
        assert replace(SMALL, device=name).resolved().settings.device == name
    for name in ("cuda:2", "meta", "tpu"):
        with pytest.raises(ValueError, match=name) as of_scoring:
            device_named(name)
        with pytest.raises(ValueError, match=name) as of_a_run:
            replace(SMALL, device=name).resolved()
        assert str(of_a_run.value) == str(of_scoring.value)


@pytest.mark.parametrize("strategy", ["random", "vaal"])
def test_a_training_that_diverges_says_so_and_keeps_nothing(strategy, tmp_path):
    config = replace(SMALL, strategy=strategy, num_iters=None, learning_rate=1e30)
    with pytest.raises(ValueError, match=r"training of round 0 diverged .* rate is 1e\+30, take"):
        run(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "state.pt").exists()


def test_the_output_must_be_a_folder_of_its_own(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="file is not a folder"):
        run(SMALL, tmp_path / "file", progress=False)
    with pytest.raises(ValueError, match=r"holds no run but is not empty \(file\)"):
        run(SMALL, tmp_path, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="run"):
        run(SMALL, tmp_path / "run", progress=False)


def test_a_full_disk_ends_in_a_clear_error_and_loses_one_round(tmp_path, monkeypatch):
    run(SMALL, tmp_path / "whole", progress=False)
    out, written = tmp_path / "run", []
    fsync = os.fsync

    def full(descriptor):
        written.append(descriptor)
        # config, round 0: query, state, rounds; round 1: scores, query; a checksum before each
        # but state and scores, which bring their own
        if len(written) == 2 + (2 + 1 + 2) + (1 + 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*query_001\.csv: No space left") as caught:
        run(SMALL, out, progress=False)
    assert caught.value.errno == errno.ENOSPC
    names = {path.name for path in out.iterdir()}
    assert names == {
        ".checksums.json",
        ".lock",
        "config.json",
        "query_000.csv",
        "state.pt",
        "rounds.csv",
        "scores.npz",
    }
    assert len(read(out / "rounds.csv")) == 1
    run(SMALL, out, progress=False)
    for name in ("query_001.csv", "query_002.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.data())
def test_the_initial_set_has_every_class(labels, data):
    labels = np.array(labels)
    n = data.draw(st.integers(1, len(labels)))
    picked = initial_indices(labels, n, seed=data.draw(st.integers(0, 9)))
    assert picked.shape == (n,)
    assert len(set(picked.tolist())) == n
    assert len(np.unique(labels[picked])) == min(n, len(np.unique(labels)))


def test_runs_and_shards_of_before_know_their_data():
    """What stands in their config.json and manifest.json: these hashes were made by version 0.1."""
    x, y = torch.arange(12, dtype=torch.float32).reshape(6, 2), torch.arange(6) % 2
    data = DataSplit(x[:3], y[:3], x[3:4], y[3:4], x[4:], y[4:], 2, "moons")
    of_run = "66a1999e534366e14f73ae4e44427a7fdbb06e803d5c04d03063ab4db09a5f54"
    assert provenance.fingerprint(data) == of_run
    of_shards = "a71503bf4cb24148dc3b5f56cdac833fe2bfe711ab02c9945e47f80de1e4af3a"
    assert fingerprint._sha256([x, y, x.bfloat16().t()]) == of_shards


def test_a_fingerprint_is_told_by_its_beginning_and_a_setting_whole():
    folder, sha256 = (
        "folder:/a/path/that/is/longer/than/the/sixty-four/digits/of/a/hash",
        "0f" * 32,
    )
    assert fingerprint.differences(
        {"dataset": f"{folder}/1", "network": sha256, "same": 1, "old": 2},
        {"dataset": f"{folder}/2", "network": "a" * 64, "same": 1},
    ) == [
        f"dataset is '{folder}/1' there and '{folder}/2' here",
        "network is '0f0f0f0f...' there and 'aaaaaaaa...' here",
        "old is 2 there and None here",
    ]
