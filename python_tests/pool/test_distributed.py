"""Scoring under torch.distributed: processes of gloo, one of which dies, and torchrun."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from command_line import make_place, score_arguments
from same_scores import COLUMNS, assert_same
from small_network import network, normal
from test_shards import held
from torch import nn
from torch.multiprocessing import get_context
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from vaal_ext.cli.app import main
from vaal_ext.integrations.query import LDRQuery
from vaal_ext.pool.scores import PoolScores
from vaal_ext.pool.shards import read_shards
from vaal_ext.scorer import LDRScorer
from vaal_ext.selection import select

pytestmark = pytest.mark.slow  # every process imports torch


class Network(nn.Module):
    """Six features to three logits; `act` is done on every forward with samples above `above`."""

    def __init__(self, act=None, above=torch.inf):
        super().__init__()
        self.layers = network(classes=3)
        self.act, self.above = act, above

    def forward(self, x):
        logits = self.layers(x)
        return self.act(logits) if self.act and (x[:, 0] > self.above).any() else logits


def scorer(model=None, **changes):
    settings = {"eps": 1.0, "num_iters": 2, "batch_size": 5} | changes
    return LDRScorer(model or Network(), **settings)


POOLS = {
    "tensor": normal,
    "dataset": lambda n: TensorDataset(normal(n), torch.arange(n)),
    "shuffled": lambda n: DataLoader(TensorDataset(normal(n)), batch_size=7, shuffle=True),
}


def failure(run):
    """The error that `run` must end in, as text, and the seconds it took."""
    start = time.monotonic()
    with pytest.raises((ValueError, ConnectionError)) as error:
        run()
    return f"{error.type.__name__}: {error.value}", time.monotonic() - start


def spread(rank, size, work, folder):
    torch.set_num_threads(1)
    os.chdir(folder)
    address = f"file://{folder}/store"
    dist.init_process_group(
        "gloo", init_method=address, rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    found = work(rank)
    Path(f"rank{rank}.json").write_text(json.dumps(found))


def in_processes(size, work, folder):
    """Exit codes and what `work(rank)` gave in each process; None where it did not end."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "vaal_ext.scorer"])
    processes = [
        context.Process(target=spread, args=(rank, size, work, str(folder))) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        process.kill()
        process.join()
    files = [folder / f"rank{rank}.json" for rank in range(size)]
    found = [json.loads(file.read_text()) if file.exists() else None for file in files]
    return [process.exitcode for process in processes], found


def assert_alike(scores, expected):
    """Other batches: float64 logits round otherwise, which float32 columns show in the last place
    at most."""
    for name in ("index", "pseudo_label"):
        np.testing.assert_array_equal(getattr(scores, name), getattr(expected, name))
    for name in ("ldr", "entropy", "margin", "posterior_mean"):
        np.testing.assert_allclose(getattr(scores, name), getattr(expected, name), rtol=1.2e-7)
    queries = [
        select(s.ldr, s.pseudo_label, 9, percentile=60.0, num_classes=3) for s in (scores, expected)
    ]
    np.testing.assert_array_equal(*queries)


def two(rank):
    index = torch.arange(41) + 100
    for name, pool in POOLS.items():
        scores = scorer().score(pool(41), sample_index=index, progress=False)
        scores.save(f"{name}{rank}.npz")
    groups = [dist.new_group([r]) for r in range(2)]
    scorer().score(normal(41), progress=False, group=groups[rank]).save(f"own{rank}.npz")
    other = groups[1 - rank]
    outside, _ = failure(lambda: scorer().score(normal(41), progress=False, group=other))
    assert "that this process is in" in outside

    auto = scorer(batch_size="auto")
    auto.score(normal(41), progress=False)
    found = {"batch_size": auto.chosen.batch_size}

    x = normal(41)
    x[33, 0] = 100.0  # which spoils the batch of 30 to 35, of the second process
    broken = Network(lambda logits: logits * torch.nan, above=50.0)
    found["nan"], _ = failure(lambda: scorer(broken).score(x, progress=False))
    found["eps"], _ = failure(lambda: scorer(eps=1.0 + rank).score(normal(41), progress=False))
    part = DataLoader(TensorDataset(x), sampler=SubsetRandomSampler([3]))
    found["part"], _ = failure(lambda: scorer().score(part, progress=False))
    found["size"], _ = failure(lambda: scorer().score(normal(41 + rank), progress=False))
    moved = Network()
    moved.register_buffer("running_mean", torch.tensor(float(rank)))
    found["trained"], _ = failure(lambda: scorer(moved).score(normal(41), progress=False))
    for buffer in moved.buffers():
        dist.broadcast(buffer, 0)
    scorer(moved).score(normal(41), progress=False)
    scorer().score(normal(1), progress=False).save(f"one{rank}.npz")
    dist.destroy_process_group()

    # What torchrun does for the command.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "none"}
    os.environ["MASTER_PORT"] = Path("port").read_text()
    found["status"] = main(score_arguments(**{"batch-size": "4"}))
    return found


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    place = make_place(tmp_path, monkeypatch)
    (place / "port").write_text(str(free_port()))
    codes, found = in_processes(2, two, place)
    assert codes == [0, 0]
    expected = scorer().score(normal(41), sample_index=torch.arange(41) + 100, progress=False)
    for name in POOLS:
        first, second = (PoolScores.load(f"{name}{rank}.npz") for rank in range(2))
        assert_alike(first, expected)
        assert_same(first, second)
    alone = scorer().score(normal(41), progress=False)
    for rank in range(2):
        assert_same(PoolScores.load(f"own{rank}.npz"), alone)
        # One sample for two processes: one of them has none.
        assert PoolScores.load(f"one{rank}.npz").num_samples == 1
    assert found[0]["batch_size"] == found[1]["batch_size"]

    said = "sample 30: the model's logits are not finite"
    assert found[1]["nan"].startswith(f"ValueError: {said}")
    assert found[0]["nan"].startswith(
        f"RankFailedError: rank 1 of the group failed: ValueError: {said}"
    )
    for rank in range(2):
        assert "eps is 1.0 there and 2.0 here (there: rank 0, here: rank 1)" in found[rank]["eps"]
        assert "num_samples is 41 there and 42 here" in found[rank]["size"]
        assert "over its whole dataset" in found[rank]["part"]
        assert "torch.distributed.broadcast(buffer, 0)" in found[rank]["trained"]
        assert "broadcast" not in found[rank]["eps"]
        assert found[rank]["status"] == 0
    assert main(score_arguments(out="alone.npz", **{"batch-size": "4"})) == 0
    assert_same(PoolScores.load("scores.npz"), PoolScores.load("alone.npz"))


def wrapped(rank):
    """Batch norm has DistributedDataParallel send rank 0's buffers round in every forward: with 3
    batches here and 2 there one of the two would wait for the other until the timeout."""
    inner = nn.Sequential(nn.BatchNorm1d(6), Network(), nn.Softmax(1)).double().eval()
    model = nn.parallel.DistributedDataParallel(inner)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = scorer(model, batch_size=4).score(normal(17), progress=False)
    scores.save(f"wrapped{rank}.npz")
    return [str(warning.message) for warning in caught]


def test_a_network_in_distributed_data_parallel_is_scored_and_one_rank_warns(tmp_path):
    codes, found = in_processes(2, wrapped, tmp_path)
    assert codes == [0, 0]
    inner = nn.Sequential(nn.BatchNorm1d(6), Network(), nn.Softmax(1)).double().eval()
    with pytest.warns(RuntimeWarning, match="probabilities"):
        alone = scorer(inner, batch_size=4).score(normal(17), progress=False)
    for rank in range(2):
        assert_alike(PoolScores.load(tmp_path / f"wrapped{rank}.npz"), alone)
    assert [len(texts) for texts in found] == [1, 0]
    assert "probabilities" in found[0][0]


def three(rank):
    scores = scorer().score(normal(41), progress=False)
    scores.save(f"scores{rank}.npz")

    def die(logits):
        os.kill(os.getpid(), signal.SIGKILL)

    x = normal(41)
    x[40, 0] = 100.0  # the last process's
    return failure(lambda: scorer(Network(die, above=50.0)).score(x, progress=False))


def test_three_processes_of_which_one_is_killed(tmp_path):
    codes, found = in_processes(3, three, tmp_path)
    assert codes == [0, 0, -signal.SIGKILL]
    alone = scorer().score(normal(41), progress=False)
    for rank in range(3):
        assert_alike(PoolScores.load(tmp_path / f"scores{rank}.npz"), alone)
    for message, seconds in found[:2]:
        assert "RankFailedError: a process of the group has died or no longer answers" in message
        assert seconds < 30  # well below the timeout of the group: the connection is gone


def one_alone(rank):
    """Only the first process queries; the other is elsewhere, and nobody waits for it."""
    alone = [dist.new_group([r]) for r in range(2)]
    if rank == 1:
        return None
    query = LDRQuery(eps=1.0, num_iters=2, group=alone[0])
    return query.choose(query.score(Network(), normal(17), None), 3).tolist()


def test_a_query_of_one_process_among_several(tmp_path):
    codes, found = in_processes(2, one_alone, tmp_path)
    assert codes == [0, 0]
    query = LDRQuery(eps=1.0, num_iters=2)
    assert found[0] == query.choose(query.score(Network(), normal(17), None), 3).tolist()


KILLER = """
import os
import pathlib
import signal
import time
import held

RANK = os.environ["RANK"]

def meet(where):
    pathlib.Path(f"{where}{RANK}").touch()
    while not pathlib.Path(f"{where}{1 - int(RANK)}").exists():
        time.sleep(0.01)

class Killed(held.Held):
    '''Both begin together, and get into their second shards; there the second process ends.'''
    def forward(self, x):
        if held.Held.forwards == 1:  # it tried the network
            meet("started")
        if held.Held.forwards == 13:  # 8 were behind it with the first shard, or 11 with the looks
            meet("second")
            if RANK == "1":
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)
"""


def test_torchrun_ends_when_a_process_dies_and_the_shards_go_on(tmp_path, monkeypatch, capsys):
    place = make_place(tmp_path, monkeypatch)
    network = held(place)
    (place / "killer.py").write_text(KILLER)
    steps = {"num-iters": "5", "batch-size": "4"}  # 7 forwards a batch
    settings = {"out": "shards", "shard-size": "4", **steps, **network}
    arguments = score_arguments(**settings | {"model": "killer:Killed"})
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    port = ["--master-port", str(free_port())]
    # The first process stops there for longer than torchrun takes to end it.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HOLD_AT": "15"}
    ended = subprocess.run(
        [*torchrun, *port, "-m", "vaal_ext", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        env=environment,
        check=False,
    )
    assert ended.returncode != 0
    assert "rank: 1" in " ".join(ended.stderr.split())
    assert "SIGKILL" in ended.stderr
    before = {path.name: path.stat().st_mtime_ns for path in Path("shards").glob("shard_*.npz")}
    assert len(before) == 2
    capsys.readouterr()
    assert main(score_arguments(**settings)) == 0
    assert f"{40 - 4 * len(before)} samples scored" in capsys.readouterr().out
    after = {path.name: path.stat().st_mtime_ns for path in Path("shards").glob("shard_*.npz")}
    assert len(after) == 10
    assert {name: after[name] for name in before} == before
    assert main(score_arguments(out="alone.npz", **steps)) == 0
    scores, alone = read_shards(Path("shards")), PoolScores.load("alone.npz")
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(scores, name), getattr(alone, name))
