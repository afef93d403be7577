"""The query strategy for scikit-activeml."""

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

pytest.importorskip("skactiveml")
pytest.importorskip("skorch")

from skactiveml.classifier import SkorchClassifier
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.naive_bayes import GaussianNB

from vaal_ext.integrations.skactiveml import LDRSampling

LABELLED = np.arange(0, 60, 4)
UNLABELLED = np.setdiff1d(np.arange(60), LABELLED)


def classifier(module=Network, lr=0.0, **params):
    net = {"max_epochs": 1, "verbose": 0, "train_split": None, "lr": lr}
    return SkorchClassifier(module, neural_net_param_dict=net, classes=[0, 1, 2], **params)


def strategy(**params):
    return LDRSampling(**{**SETTINGS, "random_state": 7, **params})


def data():
    X, y = samples(), np.full(60, np.nan)
    y[LABELLED] = LABELLED % 3
    return X, y


def seed_of(strategy, y):
    """The seed that the strategy takes from its random_state, given these labels."""
    state = np.random.RandomState(strategy.random_state)
    unlabelled = int(np.isnan(y).sum())
    seed = state.randint(1, 2**31) * (unlabelled + 1) % 2**31  # as the library spreads its seeds
    return int(np.random.RandomState(seed).randint(2**31 - 1))


@pytest.mark.rounding
def test_the_choice_is_selects_on_the_same_scores():
    X, y = data()
    scores = expected_scores(Network(), X[UNLABELLED], UNLABELLED, seed=seed_of(strategy(), y))
    sample_index, utilities = strategy().query(
        X, y, classifier(), batch_size=9, return_utilities=True
    )
    assert np.array_equal(sample_index, UNLABELLED[expected_choice(scores, 9)])
    assert sample_index.dtype == np.int64
    assert utilities.shape == (9, 60)
    for row in range(9):
        left = np.setdiff1d(UNLABELLED, sample_index[:row])
        assert np.array_equal(np.flatnonzero(~np.isnan(utilities[row])), left)
        assert np.array_equal(utilities[row, left], scores.ldr[np.searchsorted(UNLABELLED, left)])


def test_the_pool_is_screened_unless_utilities_are_wanted(monkeypatch):
    asked = asked_for(monkeypatch)
    for wanted in (False, True):
        strategy().query(*data(), classifier(), batch_size=7, return_utilities=wanted)
    assert asked == [7, None]


def test_index_candidates_and_sample_candidates():
    X, y = data()
    some = UNLABELLED[::-2]
    scores = expected_scores(Network(), X[some], some, seed=seed_of(strategy(), y))
    chosen = expected_choice(scores, 5)
    by_index, utilities = strategy().query(
        X, y, classifier(), candidates=some, batch_size=5, return_utilities=True
    )
    assert np.array_equal(by_index, some[chosen])
    assert np.array_equal(utilities[0, some], scores.ldr)
    assert np.isnan(np.delete(utilities[0], some)).all()
    # Of rows of X the start directions are known, so the scores are the same.
    by_sample, utilities = strategy().query(
        X, y, classifier(), candidates=X[some], batch_size=5, return_utilities=True
    )
    assert np.array_equal(by_sample, chosen)
    assert np.array_equal(utilities[0], scores.ldr)


def test_candidates_that_are_not_in_x_are_numbered_on_behind_it():
    X, y = data()
    new = X[:20] + 1
    scores = expected_scores(Network(), new, 60 + np.arange(20), seed=seed_of(strategy(), y))
    got = strategy().query(X, y, classifier(), candidates=new, batch_size=5)
    assert np.array_equal(got, expected_choice(scores, 5))


def test_it_trains_a_clone_or_takes_the_network_as_it_is():
    X, y = data()
    net = classifier(lr=0.5)
    before = clone(net).fit(X, y)
    trained, seed = before.neural_net_.module_, seed_of(strategy(), y)
    scores = expected_scores(trained, X[UNLABELLED], UNLABELLED, seed=seed)
    chosen = UNLABELLED[expected_choice(scores, 6)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = clone(net).fit(X, y).neural_net_.module_
        torch.manual_seed(0)
        got = strategy().query(X, y, net, batch_size=6)
    assert not hasattr(net, "neural_net_")
    scores = expected_scores(reference, X[UNLABELLED], UNLABELLED, seed=seed)
    assert np.array_equal(got, UNLABELLED[expected_choice(scores, 6)])
    assert np.array_equal(strategy().query(X, y, before, fit_clf=False, batch_size=6), chosen)
    with pytest.raises(NotFittedError):
        strategy().query(X, y, net, fit_clf=False)


def test_clone_and_seed():
    X, y = data()
    first = strategy().query(X, y, classifier(), batch_size=9, return_utilities=True)
    again = clone(strategy()).query(X, y, classifier(), batch_size=9, return_utilities=True)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1], equal_nan=True)
    other = strategy(random_state=8).query(X, y, classifier(), return_utilities=True)
    assert not np.array_equal(first[1][0], other[1][0], equal_nan=True)


@pytest.mark.rounding
def test_logits_are_found_or_refused():
    X, y = data()

    class Both(Network):
        def forward(self, x):
            return x, super().forward(x)

    class LogProbabilities(Network):
        def forward(self, x):
            return torch.log_softmax(super().forward(x), dim=1)

    class Probabilities(Network):
        def forward(self, x):
            return torch.softmax(super().forward(x), dim=1)

    def utilities(clf, **params):
        return strategy(**params).query(X, y, clf, return_utilities=True)[1][0]

    expected = utilities(classifier())
    second = {"proba": (1, nn.Softmax(dim=-1)), "embedding": (0, None)}
    assert np.array_equal(utilities(classifier(Both, forward_outputs=second)), expected, True)
    # The logits come out of log_softmax rounded once more, in whatever order its sum is taken: as
    # if the last layer were one term longer, which the bound's own slack holds.
    X_index = np.arange(60)
    bound = allowed(
        expected_scores(Network(), X, X_index, seed=seed_of(strategy(), y)),
        seed=seed_of(strategy(), y),
    )
    for clf in (
        classifier(LogProbabilities, criterion=nn.NLLLoss),
        classifier(LogProbabilities, criterion=nn.NLLLoss()),
    ):
        error = np.abs(utilities(clf) / expected - 1)
        assert (error[UNLABELLED] <= bound[UNLABELLED]).all()
    other = classifier(Probabilities, criterion=nn.MSELoss)
    with pytest.raises(ValueError, match="logits are not known"):
        utilities(other)
    log = {"scorer_params": {"logits_fn": torch.log}}
    assert np.isfinite(
        strategy(**log).query(X, y, classifier(Probabilities).fit(X, y), fit_clf=False)
    ).all()


def test_weights_are_never_left_out_in_silence():
    X, y = data()
    seen = []

    class Weighted(SkorchClassifier):
        def fit(self, X, y, sample_weight=None):
            seen.append(sample_weight)
            return super().fit(X, y)

    plain = strategy().query(X, y, classifier())
    assert plain == strategy().query(X, y, classifier(), sample_weight=np.full(60, 2.0))
    with pytest.raises(ValueError, match="takes no sample_weight"):
        strategy().query(X, y, classifier(), sample_weight=np.arange(60.0))
    with pytest.raises(ValueError, match="inconsistent"):
        strategy().query(X, y, classifier(), sample_weight=np.ones(59))
    net = Weighted(Network, classes=[0, 1, 2], **{"neural_net_param_dict": {"verbose": 0}})
    strategy().query(X, y, net, sample_weight=np.arange(60.0))
    assert np.array_equal(seen[0], np.arange(60.0))


@pytest.mark.parametrize(
    ("params", "call", "error", "match"),
    [
        ({"xi": -1.0}, {}, ValueError, "xi"),
        ({"percentile": 100}, {}, ValueError, "percentile"),
        ({"order": "up"}, {}, ValueError, "order"),
        ({"scorer_params": 3}, {}, TypeError, "scorer_params"),
        ({"scorer_params": {"colour": 3}}, {}, TypeError, "colour"),
        ({"random_state": "x"}, {}, ValueError, "seed"),
        ({}, {"clf": GaussianNB()}, TypeError, "clf"),
        ({}, {"candidates": [0, 1]}, ValueError, "labeled"),
        ({}, {"batch_size": 0}, ValueError, "batch_size"),
        ({}, {"y": np.zeros(60)}, ValueError, "at least one unlabelled"),
    ],
)
@pytest.mark.filterwarnings("ignore:'batch_size=1' is larger")
def test_bad_input_is_refused_before_training(params, call, error, match):
    class Untrainable(SkorchClassifier):
        def fit(self, X, y):
            pytest.fail("trained")

    X, y = data()
    arguments = {"X": X, "y": y, "clf": Untrainable(Network, classes=[0, 1, 2])} | call
    with pytest.raises(error, match=match):
        strategy(**params).query(**arguments)


def test_more_than_the_pool_has():
    X, y = data()
    with pytest.warns(UserWarning, match="larger than number of candidates"):
        got = strategy().query(X, y, classifier(), batch_size=50)
    assert np.array_equal(np.sort(got), UNLABELLED)
