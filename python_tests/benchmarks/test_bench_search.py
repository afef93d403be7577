"""The benchmarks of searches and queries measure what they say."""

from __future__ import annotations

import bench_query
import bench_search
import kinds
import numpy as np
import pytest
import query_opponents
import torch
from csv_files import rows as read
from rankings import query, search
from test_benchmarks import run
from torch import nn
from trained import Trained


@pytest.fixture
def network() -> Trained:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(), nn.Linear(16, 3))
    with torch.no_grad():
        model[-1].weight *= 8
    labelled = torch.randn(9, 6), torch.arange(9) % 3
    return Trained("small", model.eval().requires_grad_(False), torch.randn(600, 6), labelled)


def test_passes_are_counted_and_the_maximum_is_the_largest(network, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_search, "kinds", lambda *_: [kinds.Kind(lambda: network, (0.1, 2.0))])
    run(bench_search, monkeypatch, "--csv", tmp_path / "table.csv")
    rows = read(tmp_path / "table.csv")
    passes = {row["search"]: (float(row["forwards"]), float(row["backwards"])) for row in rows}
    assert passes == {
        "Ip 5": (7, 5),
        "Ip 5, max": (8, 5),
        "direct": (2, 1),
        "direct, 1 iteration": (3, 2),
        "direct, 2 iterations": (4, 3),
        "runner-up": (2, 1),
    }
    for row in rows:
        assert 0 <= float(row["ratio_p05"]) <= float(row["ratio_median"]) <= 1
    table = search(rows).splitlines()
    assert "direct, 1 iteration: 3F + 2B" in table[0]
    assert [line.split("|")[2].strip() for line in table[2:]] == ["0.1", "2"]


def test_the_runner_ups_direction_is_the_gradient_of_the_two_largest_logits(network):
    x = network.pool[:5].double()
    model = network.model.double()
    moved = x.clone().requires_grad_()
    best = model(moved).topk(2, 1).values
    (gradient,) = torch.autograd.grad((best[:, 1] - best[:, 0]).sum(), moved)
    step = 0.3 * gradient / gradient.norm(dim=1, keepdim=True)
    expected = bench_search.ops.symmetric_kl(model(x), model(x + step))
    found = bench_search.runner_up(0.3)(model, x, torch.arange(5))
    # float64: a few hundred roundings of 1e-16.
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_shares_of_ranks():
    truth = np.arange(100.0)
    assert bench_search.between(truth, 90, 95) == {90, 91, 92, 93, 94}
    assert bench_search.shared(-truth, truth, 90, 100) == 0
    assert bench_search.shared(np.roll(truth, 5), truth, 90, 100) == 0.5


@pytest.mark.parametrize("make", [kinds.attention, kinds.many_classes])
def test_networks_of_other_kinds_have_learnt(make, monkeypatch):
    """Their pseudo labels are not those of chance: a tenth, and 1 in 500."""
    network = make(500, torch.device("cpu"))
    assert len(network.pool) == 500
    assert not network.model.training
    assert bench_search.confidence(network) > 0.3


@pytest.mark.filterwarnings("ignore:getName:DeprecationWarning")  # baal's logger
def test_query_table(network, threads, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_query, "trained", lambda *_: network)
    table = tmp_path / "query.csv"
    run(bench_query, monkeypatch, "--threads", 1, "--rounds", 2, "--csv", table)
    rows = {row["query"]: row for row in read(table)}
    assert float(rows["entropy"]["ratio_to_entropy"]) == 1
    assert float(rows["vaal, unscreened"]["shared_full"]) == 1
    assert float(rows["vaal"]["shared_full"]) >= 0.99
    assert {row["turns"] for row in rows.values()} == {"2"}
    assert "| **vaal** |" in query(list(rows.values()))


def test_a_slow_contestant_has_one_turn(monkeypatch):
    monkeypatch.setattr(bench_query, "LONG", -1.0)
    seconds, picks = bench_query.timed({"slow": lambda pool: np.arange(3)}, torch.zeros(9, 2), 3)
    assert np.isfinite(seconds["slow"]).tolist() == [True, False, False]
    assert picks["slow"].tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:getName:DeprecationWarning")  # baal's logger
def test_bald_finds_what_dropout_disagrees_on(network):
    """Where the inputs are large the logits' sign hangs on what is dropped; at 0 nothing does."""
    pytest.importorskip("baal")
    pool = torch.zeros(40, 6)
    pool[::8] = 3 * network.pool[:5]
    with torch.no_grad():
        network.model[0].bias.zero_()
    assert set(query_opponents.bald(network, 5, pool).tolist()) == set(range(0, 40, 8))
