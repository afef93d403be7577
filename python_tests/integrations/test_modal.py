"""The query strategy for modAL."""

import numpy as np
import pytest
import torch
from small_pool import (
    SETTINGS,
    Network,
    allowed,
    asked_for,
    expected_choice,
    expected_scores,
    samples,
)
from torch import nn

pytest.importorskip("skorch")
pytest.importorskip("modAL")

from modAL.models import ActiveLearner
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier

from vaal_ext.integrations.modal import LDRSampling


class Counted(LDRSampling):
    """Counts how often modAL runs it."""

    calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return super().__call__(*args, **kwargs)


def learner(strategy, module=Network, criterion=nn.CrossEntropyLoss):
    net = NeuralNetClassifier(module, criterion=criterion, verbose=0, train_split=None)
    return ActiveLearner(estimator=net.initialize(), query_strategy=strategy)


def test_the_choice_is_selects_on_the_same_scores():
    strategy = Counted(**SETTINGS, seed=4)
    X = samples()
    # Two samples: an array of two would be unpacked as (indices, metrics).
    for calls, n in enumerate((1, 2, 9), start=1):
        scores = expected_scores(Network(), X, np.arange(60), seed=4)
        pool_index, instances, ldr = learner(strategy).query(X, n_instances=n, return_metrics=True)
        assert np.array_equal(pool_index, expected_choice(scores, n))
        assert np.array_equal(instances, X[pool_index])
        assert np.array_equal(ldr, scores.ldr[pool_index])
        assert strategy.calls == calls


def test_the_pool_is_screened_for_the_query(monkeypatch):
    asked = asked_for(monkeypatch)
    learner(LDRSampling(**SETTINGS)).query(samples(), n_instances=7)
    assert asked == [7]


@pytest.mark.rounding
def test_a_pool_that_shrinks_keeps_its_scores():
    X, left = samples(), np.arange(60)[::-3].copy()
    scores = expected_scores(Network(), X[left], left, seed=4)
    strategy = LDRSampling(**SETTINGS, seed=4)
    pool_index, _ = learner(strategy).query(
        torch.from_numpy(X[left]), n_instances=5, sample_index=left
    )
    assert np.array_equal(pool_index, expected_choice(scores, 5))
    whole = expected_scores(Network(), X, np.arange(60), seed=4)
    assert (np.abs(scores.ldr / whole.ldr[left] - 1) <= allowed(whole, seed=4)[left]).all()


def test_seed_and_settings_reach_the_scorer():
    X = samples()
    one, other = (
        learner(LDRSampling(**SETTINGS, seed=seed)).query(X, n_instances=9, return_metrics=True)[2]
        for seed in (4, 5)
    )
    assert not np.array_equal(one, other)
    for bad, error in (({"xi": 0}, ValueError), ({"percentile": 100}, ValueError)):
        with pytest.raises(error):
            LDRSampling(**(SETTINGS | bad))
    with pytest.raises(TypeError, match="colour"):
        LDRSampling(**SETTINGS, colour=1)


def test_the_first_of_several_outputs_are_the_logits():
    class Two(Network):
        def forward(self, x):
            return super().forward(x), x

    X = samples()
    got, expected = (
        learner(LDRSampling(**SETTINGS), module).query(X, n_instances=4)[0]
        for module in (Two, Network)
    )
    assert np.array_equal(got, expected)


def test_estimators_without_logits_are_refused():
    class Probabilities(Network):
        def forward(self, x):
            return torch.softmax(super().forward(x), dim=1)

    X, strategy = samples(), LDRSampling(**SETTINGS)
    with pytest.raises(ValueError, match="expects probabilities"):
        learner(strategy, Probabilities, nn.NLLLoss).query(X)
    logits = LDRSampling(**SETTINGS, logits_fn=torch.log)
    assert len(learner(logits, Probabilities, nn.NLLLoss).query(X, n_instances=3)[0]) == 3
    other = ActiveLearner(LogisticRegression(), strategy)
    with pytest.raises(TypeError, match=r"skorch\.NeuralNetClassifier, got LogisticRegression"):
        other.query(X)
    unfitted = ActiveLearner(NeuralNetClassifier(Network), strategy)
    with pytest.raises(ValueError, match="not fitted"):
        unfitted.query(X)
