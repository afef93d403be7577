"""The strategies on the last hidden layer, and BALD: what they see, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_strategies import EMBEDDED, context, model, pool, query  # noqa: F401
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vaal_ext.experiment.loop import RunConfig, run
from vaal_ext.pool.scores import PoolScores
from vaal_ext.report.runs import load_run
from vaal_ext.strategies import make_strategy, skactiveml

REFERENCE = {"backend": "reference"}


def test_badge_is_k_means_on_the_gradients_of_the_last_layer(model, pool, context):  # noqa: F811
    """scikit-activeml gets the embedding and the head: the longest gradient comes first."""
    badge = make_strategy("badge", **REFERENCE)
    scores = badge.score(model, pool, context)
    with torch.no_grad():
        model.eval()
        hidden, posterior = model[:3](pool), model(pool).softmax(1)
    np.testing.assert_allclose(scores.embedding, hidden.numpy(), rtol=1e-5, atol=1e-6)
    residual = posterior - nn.functional.one_hot(posterior.argmax(1), 3)
    length = residual.norm(dim=1) * hidden.norm(dim=1)
    assert badge.pick(scores, 1, context).tolist() == [int(length.argmax())]


def test_coreset_begins_far_from_the_labelled_samples(model, pool, context):  # noqa: F811
    coreset = make_strategy("coreset", **REFERENCE)
    scores = coreset.score(model, pool, context)
    distance = torch.cdist(torch.from_numpy(scores.embedding), torch.from_numpy(scores.labelled))
    assert coreset.pick(scores, 1, context).tolist() == [int(distance.amin(1).argmax())]


def test_a_loader_gives_what_the_tensor_gives(model, pool, context):  # noqa: F811
    loader = DataLoader(TensorDataset(pool), batch_size=7)
    for name in EMBEDDED:
        strategy = make_strategy(name, **REFERENCE)
        assert (
            query(strategy, model, loader, 5, context).tolist()
            == query(strategy, model, pool, 5, context).tolist()
        )


def test_samples_that_cannot_be_read_are_never_picked(model, pool, context):  # noqa: F811
    class Broken(TensorDataset):
        def __getitem__(self, i):
            return None if i % 3 == 0 else super().__getitem__(i)

    for name in (*EMBEDDED, "bald"):
        strategy = make_strategy(name, **REFERENCE)
        picked = query(strategy, model, Broken(pool), 40, context)
        assert sorted(picked.tolist()) == [i for i in range(60) if i % 3]
        with pytest.raises(ValueError, match="pool's 40, got 41"):
            query(strategy, model, Broken(pool), 41, context)


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_they_need_is_asked_for(name, model, pool, context, monkeypatch):  # noqa: F811
    strategy = make_strategy(name, **REFERENCE)
    with pytest.raises(ValueError, match=f"{name} needs the labelled samples"):
        strategy.score(model, pool, replace(context, labelled=None))
    with pytest.raises(TypeError, match=f"what score\\(\\) of {name} gives"):
        strategy.pick(make_strategy("entropy").score(model, pool, context), 3, context)
    scores = strategy.score(model, pool, context)
    monkeypatch.setattr(skactiveml, "available_memory", lambda device: 100)
    with pytest.raises(MemoryError, match=r"for a pool of 60 samples, and 0\.0 GiB are free"):
        strategy.pick(scores, 3, context)


def test_bald_takes_what_the_masks_disagree_about(model, pool, context):  # noqa: F811
    """The mutual information is at least 0 and at most the entropy of the mean posterior."""
    bald = make_strategy("bald", masks=50, **REFERENCE)
    before = torch.get_rng_state()
    scores = bald.score(model, pool, context)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training  # as it came
    assert (scores.mutual_information >= -1e-6).all()
    assert (scores.mutual_information <= np.log(3)).all()
    assert np.unique(scores.mutual_information).size > 50
    picked = bald.pick(scores, 5, context)
    assert set(picked) == set(np.argsort(-scores.mutual_information)[:5])
    with pytest.raises(ValueError, match="bald needs a network with dropout"):
        bald.score(nn.Linear(5, 3), pool, context)
    with pytest.raises(ValueError, match="masks must be at least 2"):
        make_strategy("bald", masks=1)


def test_the_scores_are_saved_without_the_embedding(model, pool, context, tmp_path):  # noqa: F811
    for name in ("badge", "bald"):
        scores = make_strategy(name, **REFERENCE).score(model, pool, context)
        scores.save(tmp_path / "scores.npz")
        np.testing.assert_array_equal(
            PoolScores.load(tmp_path / "scores.npz").entropy, scores.entropy
        )


@pytest.mark.parametrize("name", ["badge", "coreset+vat", "bald"])
def test_a_run_queries_by_them(name, tmp_path):
    config = RunConfig(
        "moons", name, rounds=2, initial=6, query_size=3, steps=2, device="cpu",
        backend="reference",
    )  # fmt: skip
    run(config, tmp_path / "run", progress=False)
    queries = load_run(tmp_path / "run").queries(800)
    assert [len(queries[number]) for number in range(3)] == [6, 3, 3]
