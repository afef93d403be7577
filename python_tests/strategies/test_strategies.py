"""The strategies behind their one interface, on a small pool and a tiny network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vaal_ext import ldr_scores
from vaal_ext.experiment.loop import RunConfig, run
from vaal_ext.perturbation.deepfool import deepfool
from vaal_ext.pool import first_batch
from vaal_ext.pool.scores import PoolScores
from vaal_ext.selection import select
from vaal_ext.strategies import STRATEGIES, QueryContext, Strategy, make_strategy

EMBEDDED = (
    "badge", "clue", "contrastive", "coreset", "dropquery", "falcun", "maxherding", "probcover",
    "typiclust",
)  # fmt: skip
_SETTINGS = {
    "random": {},
    "entropy": {"backend": "reference"},
    "margin": {"backend": "reference"},
    "vaal": {"eps": 0.5, "backend": "reference"},
    "dfal": {"backend": "reference"},
    "bald": {"backend": "reference"},
} | {name: {"backend": "reference"} for name in EMBEDDED}


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3))


@pytest.fixture
def pool():
    return torch.randn(60, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def context():
    def labelled():
        x = torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
        return x, torch.arange(12) % 3

    return QueryContext(sample_index=np.arange(200, 260), num_classes=3, seed=5, labelled=labelled)


def query(strategy: Strategy, model, pool, n, context) -> np.ndarray:
    return strategy.pick(strategy.score(model, pool, context), n, context)


@pytest.fixture
def looks(monkeypatch):
    """How often a network has been looked at, counted in its length."""
    found, whole = [], first_batch.look_at_network

    def look(*arguments):
        found.append(arguments)
        whole(*arguments)

    monkeypatch.setattr(first_batch, "look_at_network", look)
    return found


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "random"])
def test_a_pool_is_looked_at_unless_the_context_says_not(name, model, pool, context, looks):
    strategy = make_strategy(name, **_SETTINGS[name])
    scores = [strategy.score(model, pool, context)]
    assert len(looks) == 1
    scores.append(strategy.score(model, pool, replace(context, look=False)))
    assert len(looks) == 1
    for column in ("ldr", "pseudo_label", "entropy"):
        assert np.array_equal(*(getattr(s, column) for s in scores), equal_nan=True)


def test_a_run_looks_at_its_network_once(tmp_path, looks):
    config = RunConfig(
        "moons", "vaal", rounds=3, initial=4, query_size=2, steps=2, device="cpu",
        backend="reference",
    )  # fmt: skip
    run(config, tmp_path / "run", progress=False)
    assert len(looks) == 1


def test_every_strategy_has_settings_here():
    assert set(_SETTINGS) == set(STRATEGIES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_queries_are_distinct_reproducible_and_pool_relative(name, model, pool, context):
    strategy = make_strategy(name, **_SETTINGS[name])
    assert strategy.name == name
    picked = query(strategy, model, pool, 12, context)
    assert picked.dtype == np.int64
    assert picked.shape == (12,)
    assert len(set(picked.tolist())) == 12
    assert picked.min() >= 0
    assert picked.max() < 60
    assert query(strategy, model, pool, 12, context).tolist() == picked.tolist()
    assert sorted(query(strategy, model, pool, 60, context).tolist()) == list(range(60))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("n", [0, 61])
def test_more_than_the_pool_or_nothing_is_refused(name, n, model, pool, context):
    with pytest.raises(ValueError, match=f"got {n}"):
        query(make_strategy(name, **_SETTINGS[name]), model, pool, n, context)


@pytest.mark.parametrize("name", ["entropy", "margin", "vaal", "dfal"])
def test_scores_name_the_samples_of_the_data_set(name, model, pool, context):
    scores = make_strategy(name, **_SETTINGS[name]).score(model, pool, context)
    assert scores.index.tolist() == list(range(200, 260))
    assert np.isnan(scores.ldr).all() == (name != "vaal")


def test_random_depends_on_the_seed_alone(model, pool, context):
    strategy = make_strategy("random")
    assert strategy.score(model, pool, context) is None
    other = query(strategy, model, pool, 12, replace(context, seed=6))
    assert set(other.tolist()) != set(query(strategy, model, pool, 12, context).tolist())


def test_entropy_and_margin_take_the_most_uncertain(model, pool, context):
    with torch.no_grad():
        posterior = model.eval()(pool).double().softmax(dim=1)
    entropy = -(posterior * posterior.log()).sum(dim=1)
    top = posterior.topk(2, dim=1).values
    expected = {
        "entropy": (-entropy).argsort(),
        "margin": (top[:, 0] - top[:, 1]).argsort(),
    }
    for name, order in expected.items():
        strategy = make_strategy(name, **_SETTINGS[name])
        assert query(strategy, model, pool, 10, context).tolist() == order[:10].tolist()


def test_ties_go_to_the_smaller_index_and_unscored_samples_stay_out(context):
    nan = np.float32(np.nan)
    scores = PoolScores(
        index=np.arange(4),
        ldr=np.full(4, nan),
        pseudo_label=np.array([0, -1, 0, 0]),
        entropy=np.array([0.1, nan, 0.5, 0.5], dtype=np.float32),
        margin=np.array([0.1, nan, 0.1, 0.5], dtype=np.float32),
        posterior_mean=np.array([1.0]),
    )
    assert make_strategy("entropy").pick(scores, 3, context).tolist() == [2, 3, 0]
    assert make_strategy("margin").pick(scores, 3, context).tolist() == [0, 2, 3]
    with pytest.raises(ValueError, match="pool's 3, got 4"):
        make_strategy("margin").pick(scores, 4, context)


@pytest.mark.rounding
def test_vaal_scores_by_data_set_index_and_selects(model, pool, context):
    settings = {
        "percentile": 60.0,
        "class_prior": "predicted",
        "order": "descending",
        "num_iters": 2,
    }
    strategy = make_strategy("vaal", **_SETTINGS["vaal"], **settings)
    scores = strategy.score(model, pool, context)
    expected = ldr_scores(
        model, pool, eps=0.5, num_iters=2, seed=5, backend="reference",
        sample_index=torch.arange(200, 260),
    )  # fmt: skip
    np.testing.assert_array_equal(scores.ldr, expected.numpy())
    picked = strategy.pick(scores, 9, context)
    by_hand = select(
        scores.ldr, scores.pseudo_label, 9, percentile=60, class_prior="predicted",
        order="descending", posterior_mean=scores.posterior_mean,
    )  # fmt: skip
    assert picked.tolist() == by_hand.tolist()


def test_a_percentile_that_follows_the_accuracy(model, pool, context):
    strategy = make_strategy("vaal", **_SETTINGS["vaal"], percentile="accuracy")
    with pytest.raises(ValueError, match="'accuracy' needs the accuracy on a validation set"):
        strategy.score(None, pool, context)  # before anything is scored
    scores = strategy.score(model, pool, replace(context, val_accuracy=0.5))
    for accuracy, percentile in ((0.4, 40.0), (1.0, 100 * (1 - 6 / 60))):
        by_hand = select(scores.ldr, scores.pseudo_label, 6, percentile=percentile, num_classes=3)
        picked = strategy.pick(scores, 6, replace(context, val_accuracy=accuracy))
        assert picked.tolist() == by_hand.tolist()
    with pytest.raises(ValueError, match="'accuracy' needs the accuracy on a validation set"):
        strategy.pick(scores, 6, context)


@pytest.mark.rounding
def test_dfal_takes_the_nearest_and_makes_their_twins(model, pool, context):
    strategy = make_strategy("dfal", overshoot=0.1, backend="reference")
    found = deepfool(model, pool, overshoot=0.1, backend="reference")
    picked = query(strategy, model, pool, 7, context)
    assert picked.tolist() == found.norm.argsort()[:7].tolist()
    x, of = strategy.make_twins(model, pool[picked], replace(context, batch_size=3))
    assert of.tolist() == list(range(7))
    torch.testing.assert_close(x, (pool + found.perturbation)[picked], rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        assert (model.eval()(x).argmax(1) != found.logits[picked].argmax(1)).all()
    assert make_strategy("dfal", twins=False).make_twins(model, pool[picked], context) is None
    assert make_strategy("entropy").make_twins(model, pool[picked], context) is None
    # A flat network: nothing to reach, so the pool's order decides, and there is no twin.
    flat = nn.Linear(5, 2)
    flat.weight.data.zero_()
    with pytest.warns(RuntimeWarning, match="no other class from 60 of 60"):
        assert query(strategy, flat, pool, 2, context).tolist() == [0, 1]
    x, of = strategy.make_twins(flat, pool[:2], context)
    assert (x.shape, of.shape) == ((0, 5), (0,))


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("dropout", {}, ValueError, "random, entropy, .*, typiclust, got 'dropout'"),
        ("random", {"xi": 1.0}, ValueError, "random has no setting 'xi'; it has none"),
        ("entropy", {"xi": 1.0}, ValueError, "it has backend"),
        ("margin", {"backend": "cuda"}, ValueError, "backend must be"),
        ("dfal", {"twins": 1}, TypeError, "twins must be True or False"),
        ("dfal", {"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        (
            "vaal",
            {"method": "finite-difference", "xi": 0.0, "eps": 1.0},
            ValueError,
            "xi must be finite and above 0",
        ),
        ("vaal", {"eps": float("inf")}, ValueError, "eps must be finite"),
        ("vaal", {"eps": "2"}, TypeError, "eps must be a number"),
        ("vaal", {"eps": 1.0, "num_iters": -1}, ValueError, "num_iters"),
        (
            "vaal",
            {"eps": 1.0, "percentile": 100},
            ValueError,
            "nothing ranks above",
        ),
        (
            "vaal",
            {"eps": 1.0, "percentile": "90"},
            ValueError,
            "or 'accuracy', got '90'",
        ),
        ("vaal", {"eps": 1.0, "order": "up"}, ValueError, "order must be"),
        (
            "vaal",
            {"eps": 1.0, "class_prior": "odd"},
            ValueError,
            "class_prior must",
        ),
        ("vaal", {"eps": 1.0, "class_prior": [0, 0]}, ValueError, "above 0"),
    ],
)
def test_bad_settings_are_refused_when_the_strategy_is_made(name, settings, error, message):
    with pytest.raises(error, match=message):
        make_strategy(name, **settings)
