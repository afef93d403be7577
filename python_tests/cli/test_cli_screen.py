"""`vaal-ext score --above P`, and `select` of its file."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refuse, score_arguments
from screened_pool import telling

from vaal_ext.cli.app import main
from vaal_ext.pool.scores import PoolScores

FACTORY = """
import torch
from screened_pool import Network

def net():
    network = Network()
    network.register_buffer("one", torch.ones(1))  # weights to be read
    return network
"""


@pytest.fixture
def place(place: Path) -> Path:
    """The shared one, with a pool for the screen and a network that it fits."""
    Path("screened_factory.py").write_text(FACTORY)
    torch.save({"one": torch.ones(1)}, "net.pt")
    np.savez("pool.npz", x=telling().float().numpy())
    return place


def arguments(**changes: str) -> list[str]:
    return score_arguments(model="screened_factory:net", eps="0.1", **changes)


def query(scores: str, *options: str) -> list[list[str]]:
    chosen = ["select", "--scores", scores, "--n", "100", "--out", "query.csv", *options]
    assert main(chosen) == 0
    with open("query.csv", newline="") as file:
        return list(csv.reader(file))


def test_score_above_then_select(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(above="90")) == 0
    out, err = capfd.readouterr()
    assert "LDR where it can rank above 90 %\n" in err
    assert "of 6000 samples, the others rank below 90 %\n" in out
    assert PoolScores.load("scores.npz").left_out.sum() == 5400
    assert main(arguments(out="whole.npz")) == 0
    for options in ((), ("--percentile", "95", "--order", "descending")):
        assert query("scores.npz", *options) == query("whole.npz", *options)
    lower = ["select", "--scores", "scores.npz", "--n", "100", "--out", "none.csv"]
    refuse(place, capfd, [*lower, "--percentile", "80"], "Score the pool with above=80 or less")
    refuse(place, capfd, [*lower[:4], "1200", *lower[5:]], "Score the pool with above=80 or less")


def test_it_is_refused_where_it_cannot_be(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused = partial(refuse, place, capfd)
    refused(arguments(above="100"), "above must be below 100")
    refused(arguments(above="-1"), "above must be in [0, 100), got -1")
    refused(arguments(above="most"), "--above")
    refused(arguments(above="90", out="shards"), "above is for an .npz file: ")
