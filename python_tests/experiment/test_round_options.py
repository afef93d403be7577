"""What a round may be told: the class prior, the order, a warm start; and pools at their limits."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_arguments
from killed_runs import Killed, assert_same, kill_at, small_model

from vaal_ext.cli.app import main
from vaal_ext.experiment import each_round, loop
from vaal_ext.experiment.loop import RunConfig, run
from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.experiment.training import train
from vaal_ext.pool.scores import PoolScores
from vaal_ext.selection import select

pytestmark = pytest.mark.usefixtures("small_models")

SMALL = RunConfig(
    "moons", "vaal", rounds=2, initial=6, query_size=10, steps=30, pool_size=200, num_iters=1,
    percentile=20.0,  # both classes are above it, so that the prior matters
    device="cpu", backend="reference",
)  # fmt: skip

EVERYTHING = replace(SMALL, class_prior="predicted", order="random", warm_start=True)


def queried(out: Path, number: int) -> list[int]:
    with open(out / f"query_{number:03}.csv", newline="") as file:
        return [int(row["index"]) for row in csv.DictReader(file)]


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "state.pt", weights_only=True)["weights"]


# --- class prior and order --------------------------------------------------------------------


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
@pytest.mark.parametrize("prior", ["uniform", "predicted", None, [3.0, 1.0]])
def test_a_query_follows_the_prior_and_the_order(prior, order, tmp_path):
    config = replace(SMALL, class_prior=prior, order=order, rounds=1)
    run(config, tmp_path / "run", progress=False)
    scores = PoolScores.load(tmp_path / "run" / "scores.npz")
    picked = select(
        scores.ldr,
        scores.pseudo_label,
        10,
        percentile=20.0,
        class_prior=scores.posterior_mean if prior == "predicted" else prior,
        order=order,
        num_classes=2,
        seed=stream_seed(0, Stream.QUERY, 1),
    )
    assert queried(tmp_path / "run", 1) == scores.index[picked].tolist()


def test_the_options_change_the_query(tmp_path):
    changes = [
        {},
        {"class_prior": [1.0, 0.0]},
        {"class_prior": [0.0, 1.0]},
        {"order": "descending"},
        {"order": "random"},
        {"method": "fisher", "sign": "max"},
    ]
    queries = []
    for i, change in enumerate(changes):
        run(replace(SMALL, rounds=1, **change), tmp_path / str(i), progress=False)
        queries.append(tuple(sorted(queried(tmp_path / str(i), 1))))
    assert len(set(queries)) == len(changes)


# --- warm start -------------------------------------------------------------------------------


def test_a_warm_start_trains_on_from_the_last_weights(tmp_path):
    config = replace(SMALL, strategy="random", num_iters=None, percentile=None, warm_start=True)
    run(replace(config, rounds=1), tmp_path / "one", progress=False)
    run(replace(config, rounds=2), tmp_path / "two", progress=False)
    data = loop.load_dataset("moons", None, stream_seed(0, Stream.SPLIT))
    model = small_model(data, seed=0)
    model.load_state_dict(weights_of(tmp_path / "one"))
    labelled = torch.load(tmp_path / "two" / "state.pt", weights_only=True)["labelled"]
    how = config.resolved().training
    train(
        model,
        data.train_x[labelled],
        data.train_y[labelled],
        steps=how.steps,
        learning_rate=how.learning_rate,
        batch_size=how.batch_size,
        seed=stream_seed(0, Stream.LOADER, 2),
    )
    expected, after = model.state_dict(), weights_of(tmp_path / "two")
    assert all(torch.equal(after[name], expected[name]) for name in expected)


def test_a_warm_start_changes_the_rounds_after_the_first_training(tmp_path):
    """And not the first one, nor what the first query chooses."""
    for warm in (False, True):
        run(replace(SMALL, warm_start=warm), tmp_path / str(warm), progress=False)
    cold, warm = tmp_path / "False", tmp_path / "True"
    rows = []
    for out in (cold, warm):
        with open(out / "rounds.csv", newline="") as file:
            rows.append([row["train_loss"] for row in csv.DictReader(file)])
    assert rows[0][0] == rows[1][0]
    assert rows[0][1] != rows[1][1]
    assert queried(cold, 1) == queried(warm, 1)
    assert queried(cold, 2) != queried(warm, 2)


def test_killed_with_every_option_it_ends_where_an_undisturbed_run_ends(tmp_path, monkeypatch):
    """Before the second round scores, before it trains, after its commit, in the third round."""
    run(EVERYTHING, tmp_path / "whole", progress=False)
    for moment in (21, 25, 38, 47):
        out = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            kill_at(patch, moment)
            with pytest.raises(Killed):
                run(EVERYTHING, out, progress=False)
        run(EVERYTHING, out, progress=False)
        assert_same(tmp_path / "whole", out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warm_start": False}, "warm_start is True there and False here"),
        ({"order": "ascending"}, "order is 'random' there and 'ascending' here"),
        ({"class_prior": "uniform"}, "class_prior is 'predicted' there and 'uniform' here"),
        ({"class_prior": [1, 3]}, r"class_prior is 'predicted' there and \[1.0, 3.0\] here"),
    ],
)
def test_the_options_are_part_of_what_a_run_is(change, message, tmp_path):
    run(replace(EVERYTHING, rounds=1), tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=f"holds a different run: {message}"):
        run(replace(EVERYTHING, rounds=1, **change), tmp_path / "run", progress=False)


def test_the_command_takes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"strategy": "vaal", "class-prior": "3,1", "order": "descending"}
    assert main([*run_arguments(**options), "--warm-start"]) == 0
    config = json.loads(Path("run/config.json").read_text())["config"]
    assert (config["class_prior"], config["order"]) == ([3.0, 1.0], "descending")
    assert config["warm_start"] is True
    assert main(run_arguments(**options)) == 2  # without --warm-start it is another run


def test_a_warm_start_is_a_yes_or_a_no(tmp_path):
    with pytest.raises(TypeError, match="warm_start must be True or False, got 'no'"):
        run(replace(SMALL, warm_start="no"), tmp_path / "run", progress=False)


# --- classes that are missing, pools that are used up ----------------------------------------


def write_three_classes(path: Path, count: int = 30) -> str:
    """Three classes far apart; 30 in the pool, and validation and test sets of their own."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 3
    x = rng.normal(size=(count, 2)) + 5 * np.eye(3, 2)[y]
    np.savez(path, x=x, y=y, x_val=x[:6], y_val=y[:6], x_test=x[:6], y_test=y[:6])
    return f"npz:{path}"


def of_strategy(name):
    """The strategy, without the settings of SMALL that only vaal reads."""
    return {"strategy": name} | ({} if name == "vaal" else {"num_iters": None, "percentile": None})


@pytest.fixture
def three_classes(tmp_path, monkeypatch):
    def model_for(dataset, *, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.nn.Linear(2, dataset.num_classes)

    monkeypatch.setattr(each_round, "model_for", model_for)
    dataset = write_three_classes(tmp_path / "data.npz")
    return replace(SMALL, dataset=dataset, pool_size=None, initial=3, query_size=3)


@pytest.mark.parametrize(
    ("strategy", "prior"),
    [
        *(("vaal", prior) for prior in ("uniform", "predicted", None, [0.0, 0.0, 1.0])),
        *((other, "uniform") for other in ("random", "entropy", "margin")),
    ],
)
def test_classes_that_the_initial_set_lacks_stay_in_the_game(
    strategy, prior, three_classes, tmp_path
):
    """The network has an output for them; a quota that nothing is taken for goes to the others."""
    config = replace(three_classes, **of_strategy(strategy), class_prior=prior, initial=1)
    run(config, tmp_path / "run", progress=False)
    chosen = [queried(tmp_path / "run", number) for number in range(3)]
    assert [len(query) for query in chosen] == [1, 3, 3]
    assert len(set(itertools.chain(*chosen))) == 7
    assert weights_of(tmp_path / "run")["weight"].shape == (3, 2)


@pytest.mark.parametrize("strategy", ["vaal", "random", "entropy", "margin"])
@pytest.mark.parametrize("pool_size", [None, 5])
def test_the_last_query_may_take_all_that_is_left(strategy, pool_size, three_classes, tmp_path):
    config = replace(
        three_classes, **of_strategy(strategy), initial=18, query_size=4, rounds=3,
        pool_size=pool_size,
    )  # fmt: skip
    run(config, tmp_path / "run", progress=False)
    chosen = [queried(tmp_path / "run", number) for number in range(4)]
    assert [len(query) for query in chosen] == [18, 4, 4, 4]
    assert sorted(itertools.chain(*chosen)) == list(range(30))


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        ({"initial": 31, "query_size": 1, "rounds": 1}, 32),  # the initial set alone is too large
        ({"initial": 20, "query_size": 11, "rounds": 1}, 31),  # a query larger than what is left
        ({"initial": 3, "query_size": 9, "rounds": 4}, 39),  # it would run dry in the fourth round
    ],
)
def test_more_labels_than_the_pool_has_are_refused_at_once(change, labels, three_classes, tmp_path):
    with pytest.raises(ValueError, match=f"are {labels} labels; the pool of .* has 30 samples"):
        run(replace(three_classes, **change), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


# --- the search of the perturbation -----------------------------------------------------------


def test_fisher_has_no_xi(tmp_path):
    config = replace(SMALL, method="fisher", sign="max", rounds=1)
    run(config, tmp_path / "run", progress=False)
    written = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (written["method"], written["sign"], written["xi"]) == ("fisher", "max", None)
    bad = tmp_path / "bad"
    assert main(run_arguments(strategy="vaal", method="fisher", xi="0.1", out=str(bad))) == 2
    assert not bad.exists()
