"""Scores in a folder of shards: taken up again after a kill, shared by processes, read as one."""

import csv
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refuse, score_arguments
from filelock import FileLock
from same_scores import assert_same
from small_network import network, normal
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

import vaal_ext
from vaal_ext.cli.app import main
from vaal_ext.pool.scores import PoolScores, joined
from vaal_ext.pool.shards import read_shards
from vaal_ext.scorer import LDRScorer


def arguments(**changes):
    """Shards of eight in batches of four: those of a whole pool are the same batches."""
    given = {"out": "shards", "shard-size": "8", "batch-size": "4"} | changes
    return score_arguments(**given)


def whole(**changes):
    assert main(score_arguments(out="whole.npz", **{"batch-size": "4"}, **changes)) == 0
    return PoolScores.load("whole.npz")


def times(folder="shards"):
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).glob("shard_*.npz")}


def query(scores, out="query.csv", n=9):
    assert main(["select", "--scores", scores, "--n", str(n), "--out", out]) == 0
    with open(out, newline="") as file:
        return list(csv.reader(file))


@pytest.mark.rounding
def test_shards_hold_what_the_file_holds(place, capsys):
    assert main(arguments()) == 0
    assert "shards: 40 samples scored" in capsys.readouterr().out
    assert sorted(path.name for path in Path("shards").iterdir()) == [
        ".checksums.json",
        ".lock",
        "manifest.json",
        *(f"shard_{number:05d}.npz" for number in range(5)),
    ]
    assert_same(read_shards(Path("shards")), whole())
    assert query("shards") == query("whole.npz")
    before = times()
    assert main(arguments()) == 0
    assert "nothing was left to score" in capsys.readouterr().out
    assert times() == before


def test_the_last_shard_is_what_is_left(place):
    assert main(arguments(**{"shard-size": "12"})) == 0
    sizes = [PoolScores.load(path).num_samples for path in sorted(Path("shards").glob("*.npz"))]
    assert sizes == [12, 12, 12, 4]
    assert_same(read_shards(Path("shards")), whole())


HELD = """
import os
import time
import factories
from torch import nn

class Held(nn.Module):
    '''Stops at the forward that HOLD_AT says, counted from 1, until it is ended.'''
    forwards = 0
    def __init__(self):
        super().__init__()
        self.layers = factories.net()
    def forward(self, x):
        Held.forwards += 1
        if os.environ.get("HOLD_AT") == str(Held.forwards):
            time.sleep(100)
        return self.layers(x)
"""


def held(place):
    """The usual network in a module that can be made to stop, and its weights file."""
    (place / "held.py").write_text(HELD)
    state = torch.load("net.pt", weights_only=True)
    torch.save({f"layers.{key}": value for key, value in state.items()}, "held.pt")
    return {"model": "held:Held", "weights": "held.pt"}


def test_a_kill_loses_and_doubles_nothing(place):
    steps = {"num-iters": "5"}  # 7 forwards a batch
    network = held(place) | steps
    command = [sys.executable, "-m", "vaal_ext", *arguments(**network)]
    # One forward tries the network, three look at the first batch, and 14 are a shard: the third is
    # not finished.
    process = subprocess.Popen(command, env=os.environ | {"HOLD_AT": "35"})
    deadline = time.monotonic() + 60
    while len(times()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = times()
    assert len(before) == 2
    leftover = place / "shards" / f".{'0' * 16}.tmp"
    leftover.write_bytes(b"half a shard")
    os.utime(leftover, (time.time() - 120,) * 2)
    select = ["select", "--scores", "shards", "--n", "9", "--out", "query.csv"]
    assert main(select) == 2
    assert main(arguments(**network)) == 0
    after = times()
    assert len(after) == 5
    assert {name: after[name] for name in before} == before
    assert not list(Path("shards").glob(".*.tmp"))
    assert_same(read_shards(Path("shards")), whole(**steps))


def test_a_shard_that_another_process_is_at(place, capfd):
    assert main(arguments(data="npz:pool.npz", out="other")) == 0  # only to have a manifest
    Path("shards").mkdir()
    Path("shards/manifest.json").write_bytes(Path("other/manifest.json").read_bytes())
    capfd.readouterr()
    with FileLock("shards/.shard_00002.lock"):
        assert main(arguments()) == 0
        assert "32 samples scored" in (out := capfd.readouterr().out)
        assert "1 shards of the pool are still to be done" in out
        select = ["select", "--scores", "shards", "--n", "9", "--out", "query.csv"]
        refuse(place, capfd, select, "lacks 1 of 5 shards (the first is shard_00002.npz)")
    assert main(arguments()) == 0
    assert "8 samples scored" in capfd.readouterr().out
    assert_same(read_shards(Path("shards")), whole())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": "0.25"}, "eps is 0.5 there and 0.25 here"),
        ({"seed": "1"}, "seed is 0 there and 1 here"),
        ({"shard-size": "10"}, "shard_size is 8 there and 10 here"),
        ({"weights": "others.pt"}, "network is "),
        ({"data": "npz:others.npz"}, "samples is "),
        ({"data": "npz:fewer.npz"}, "num_samples is 40 there and 39 here"),
    ],
)
def test_other_settings_are_refused(place, capfd, changes, message):
    assert main(arguments()) == 0
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    torch.save(net.state_dict(), "others.pt")
    x = np.load("pool.npz")["x"]
    np.savez("fewer.npz", x=x[:39])
    x[-1] += 1
    np.savez("others.npz", x=x)
    refuse(place, capfd, arguments(**changes), message)


def test_batch_size_and_workers_may_change(place):
    assert main(arguments()) == 0
    Path("shards/shard_00001.npz").unlink()
    assert main(arguments(**{"batch-size": "8"})) == 0
    assert read_shards(Path("shards")).num_samples == 40


def test_bad_folders(place, capfd):
    refuse(place, capfd, arguments(out="scores.npz"), "shard-size is for a folder of shards")
    refuse(place, capfd, arguments(**{"shard-size": "0"}), "shard_size must be at least 1")
    refuse(place, capfd, arguments(out="net.pt"), "net.pt")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    select = ["select", "--n", "2", "--out", "q.csv", "--scores"]
    refuse(place, capfd, [*select, "full"], "manifest.json")
    refuse(place, capfd, arguments(out="full"), "holds no scores but is not empty (notes.txt)")

    assert main(arguments()) == 0
    shard = Path("shards/shard_00001.npz")
    content = shard.read_bytes()
    shard.write_bytes(content[:100])
    refuse(place, capfd, [*select, "shards"], "shard_00001.npz is no readable file")
    shard.write_bytes(Path("shards/shard_00002.npz").read_bytes())
    refuse(place, capfd, [*select, "shards"], "must hold samples 8 to 16, it holds 8 from [16]")
    manifest = Path("shards/manifest.json")
    found = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(found | {"shard_size": 5}))
    refuse(place, capfd, [*select, "shards"], "is damaged or was edited")
    Path("shards/.checksums.json").unlink()  # as in a folder of an earlier version
    for broken in ("{", "[]", json.dumps(found | {"shard_size": 0})):
        manifest.write_text(broken)
        refuse(place, capfd, [*select, "shards"], "is no manifest of scores")
        refuse(place, capfd, arguments(), "is no manifest of scores")


def test_a_full_disk_names_the_shard(place, capfd, monkeypatch):
    def full(file, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert main(arguments()) == 2
    error = capfd.readouterr().err
    assert error.endswith("cannot write shards/shard_00000.npz: No space left on device\n")


def scorer(**changes):
    return LDRScorer(network(classes=3), **({"eps": 1.0, "batch_size": 4} | changes))


@pytest.mark.parametrize("kind", ["dataset", "loader", "loader, shuffled"])
def test_shards_of_other_pools_and_with_an_index(tmp_path, kind):
    x, index = normal(30), torch.arange(30) + 100
    pool = TensorDataset(x)
    if kind != "dataset":
        pool = DataLoader(pool, batch_size=4, shuffle=kind.endswith("shuffled"))
    model, state = scorer(), torch.get_rng_state()
    count = model.score_shards(
        pool, tmp_path / "a", sample_index=index, shard_size=8, progress=False
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert count == 30
    found = vaal_ext.read_shards(tmp_path / "a")
    expected = scorer().score(x, sample_index=index, progress=False)
    assert_same(found, expected)


def test_settled_once_for_all_shards(tmp_path):
    """What the first call chose counts for the next, whatever its own trial would have found."""
    x = normal(30)
    first = scorer(batch_size="auto")
    first.score_shards(x, tmp_path / "a", shard_size=8, progress=False)
    (tmp_path / "a" / "shard_00001.npz").unlink()
    again = scorer(batch_size="auto")
    assert again.score_shards(x, tmp_path / "a", shard_size=8, progress=False) == 8
    assert again.chosen.batch_size == first.chosen.batch_size
    assert again.chosen.mode == first.chosen.mode


@pytest.mark.rounding
def test_begun_by_a_loader_gone_on_with_its_dataset(tmp_path):
    """The loader made the batches: their size is settled now."""
    x = normal(30)
    loader = DataLoader(TensorDataset(x), batch_size=4)
    auto = {"batch_size": "auto"}
    scorer(**auto).score_shards(loader, tmp_path / "a", shard_size=8, progress=False)
    (tmp_path / "a" / "shard_00001.npz").unlink()
    again = scorer(**auto)
    assert again.score_shards(TensorDataset(x), str(tmp_path / "a"), shard_size=8) == 8
    assert again.chosen.batch_size > 1
    found, expected = vaal_ext.read_shards(str(tmp_path / "a")), scorer().score(x, progress=False)
    np.testing.assert_allclose(found.ldr, expected.ldr, rtol=1.2e-7)  # other batches


def test_a_pool_that_changed_in_the_middle_is_another(tmp_path):
    x = normal(30)
    scorer().score_shards(x, tmp_path / "a", shard_size=8, progress=False)
    x[10:20] += 1
    with pytest.raises(ValueError, match="holds scores of something else: samples is"):
        scorer().score_shards(x, tmp_path / "a", shard_size=8, progress=False)


def test_what_kills_left_goes_when_it_is_old(tmp_path):
    """Another machine, without our locks, may be writing what is already there."""
    scorer().score_shards(normal(30), tmp_path / "a", shard_size=8, progress=False)
    young, old = (tmp_path / "a" / f".{digit * 16}.tmp" for digit in "ab")
    young.touch()
    old.touch()
    os.utime(old, (time.time() - 120,) * 2)
    scorer().score_shards(normal(30), tmp_path / "a", shard_size=8, progress=False)
    assert young.exists()
    assert not old.exists()


def test_a_loader_that_leaves_samples_out_has_no_parts(tmp_path):
    loader = DataLoader(TensorDataset(normal(30)), sampler=SubsetRandomSampler(range(5)))
    with pytest.raises(ValueError, match=r"over its whole dataset .* SubsetRandomSampler"):
        scorer().score_shards(loader, tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()


def test_flat_samples_are_told(tmp_path):
    model = scorer(method="finite-difference", xi=1e-20)  # which float64 loses
    with pytest.warns(RuntimeWarning, match="LDR is 0 for 30 of 30") as caught:
        model.score_shards(normal(30), tmp_path / "a", shard_size=8, progress=False)
    assert [warning.filename for warning in caught] == [__file__]


def pool_scores(n, classes=3, **changes):
    arrays = {
        "index": np.arange(n),
        "ldr": np.ones(n, np.float32),
        "pseudo_label": np.zeros(n, np.int64),
        "entropy": np.ones(n, np.float32),
        "margin": np.ones(n, np.float32),
        "posterior_mean": np.full(classes, 1 / max(1, classes)),
    }
    return PoolScores(**(arrays | changes))


def test_joined_weighs_means_by_the_samples_that_have_one():
    failed = pool_scores(2, pseudo_label=np.array([-1, -1]), posterior_mean=np.full(3, np.nan))
    one = pool_scores(1, posterior_mean=np.array([1.0, 0.0, 0.0]))
    three = pool_scores(3, posterior_mean=np.array([0.0, 0.0, 1.0]))
    empty = pool_scores(0, classes=0)
    together = joined([empty, one, failed, three], 6)
    np.testing.assert_allclose(together.posterior_mean, [0.25, 0.0, 0.75], rtol=1e-15)
    assert np.isnan(joined([failed], 2).posterior_mean).all()
    assert joined([empty], 0).num_classes == 0
    with pytest.raises(ValueError, match="do not fit"):
        joined([one, pool_scores(3, classes=2)], 4)
    with pytest.raises(ValueError, match="do not fit"):
        joined([one, pool_scores(1, perturbation_norm=np.ones(1, np.float32))], 2)
    with pytest.raises(ValueError, match="hold 4 samples of 5"):
        joined([one, three], 5)


def test_reading_takes_the_memory_of_the_scores_and_a_shard(tmp_path):
    shards, size = 16, 20_000
    for number in range(shards):
        index = np.arange(size) + number * size
        pool_scores(size, index=index).save(tmp_path / f"shard_{number:05d}.npz")
    manifest = {
        "identity": {"num_samples": shards * size, "sample_index": None},
        "shard_size": size,
        "execution": {"batch_size": 4, "mode": {}},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    tracemalloc.start()
    scores = read_shards(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scores.num_samples == shards * size
    # 28 bytes a sample; besides the last shard, this one, and the bytes of an array on their way.
    assert peak < 28 * (shards * size + 3 * size) + 100_000
