"""Every statistic against its definition, by hand or by counting, and its invariants."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, rankdata

from vaal_ext.report.statistics import (
    area_under_curve,
    holm,
    mean_and_interval,
    paired_difference,
    signed_rank_p,
    win_matrix,
)

# Accuracies on a test set of 20 samples: ties are common.
_accuracy = st.integers(0, 20).map(lambda correct: correct / 20)
_seeds = st.lists(_accuracy, min_size=2, max_size=12)
_p = st.one_of(st.just(math.nan), st.floats(0, 1))


@st.composite
def _tables(draw: st.DrawFn) -> np.ndarray:
    """Accuracies [S, K, L]."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)))
    n = math.prod(shape)
    return np.array(draw(st.lists(_accuracy, min_size=n, max_size=n))).reshape(shape)


def test_area_by_hand() -> None:
    # Trapezia of width 10 and 20, over the width 30.
    accuracy = np.array([[0.5, 0.7, 0.9], [0.6, 0.9, 0.9]])
    area = area_under_curve(np.array([20, 30, 50]), accuracy)
    expected = [(0.6 * 10 + 0.8 * 20) / 30, (0.75 * 10 + 0.9 * 20) / 30]
    np.testing.assert_allclose(area, expected, rtol=1e-15)


@pytest.mark.parametrize("labels", [[20], [20, 20], [30, 20], [[20, 30]]])
def test_area_refuses_labels(labels: list) -> None:
    with pytest.raises(ValueError, match="two or more increasing numbers"):
        area_under_curve(np.array(labels), np.zeros(np.shape(labels)))


@pytest.mark.parametrize("n", [2, 3, 4, 10, 20])
def test_interval_of_one_success(n: int) -> None:
    """Of one 1 and n - 1 zeros a resample holds Binomial(n, 1/n) ones: its quantiles are known.

    For these n the binomial has no tail within 0.004 of 2.5 %, which 9999 draws tell apart: their
    standard error there is 0.0016.
    """
    for quantile in (0.025, 0.975):
        around = binom.cdf(np.arange(n), n, 1 / n)
        assert np.abs(around - quantile).min() > 0.004
    mean, low, high = mean_and_interval(np.array([1.0] + [0.0] * (n - 1)))
    expected = binom.ppf([0.025, 0.975], n, 1 / n) / n
    np.testing.assert_allclose([mean, low, high], [1 / n, *expected], rtol=1e-15)


def test_interval_is_paired() -> None:
    """Seeds differ widely, the two strategies by 0.01 in each: of that there is no doubt."""
    first = np.array([0.3, 0.9, 0.5, 0.7])
    assert np.ptp(mean_and_interval(first)[1:]) > 0.3
    _, low, high = mean_and_interval(paired_difference(first + 0.01, first))
    assert low == high == pytest.approx(0.01, abs=1e-15)


def test_interval_of_columns_is_that_of_each() -> None:
    values = np.random.default_rng(0).random((5, 2, 3))
    together = np.array(mean_and_interval(values))
    for i, j in itertools.product(range(2), range(3)):
        np.testing.assert_array_equal(together[:, i, j], mean_and_interval(values[:, i, j]))


def test_one_seed_has_no_interval() -> None:
    mean, low, high = mean_and_interval(np.array([[0.25, 0.5]]))
    np.testing.assert_array_equal(mean, [0.25, 0.5])
    assert np.isnan([low, high]).all()


@settings(max_examples=50, deadline=None)
@given(_seeds, st.randoms(use_true_random=False))
def test_interval_holds_the_mean_in_any_order(values: list[float], random) -> None:
    mean, low, high = mean_and_interval(np.array(values))
    # A mean of 12 numbers below 1 is off by less than 12 * 2^-53, two of them by 24 * 2^-53.
    ordered = np.array([min(values), low, mean, high, max(values)])
    assert (np.diff(ordered) >= -24 * 2.0**-53).all()
    random.shuffle(values)
    assert mean_and_interval(np.array(values)) == (mean, low, high)


def signed_rank_by_definition(difference: list[float]) -> float:
    """Every way to give the ranks signs; both tails of the sum of the positive ones."""
    kept = [d for d in difference if d]
    ranks = rankdata(np.abs(kept))
    signs = np.array(list(itertools.product([False, True], repeat=len(kept))))
    sums, observed = signs @ ranks, ranks[np.array(kept) > 0].sum()
    return min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))


@pytest.mark.parametrize(
    ("difference", "p"),
    [
        ([1, 2, 3, 4, 5, 6], 2 / 64),
        ([-1, -2, -3, -4, -5, -6], 2 / 64),
        ([1, 1, 1, 1, 1, 1], 2 / 64),
        ([-1, 2, 3, 4, 5, 6], 4 / 64),  # as far out: no sign negative, or that of rank 1
        ([1, -2, 3, 4, 5, 6, 7], 6 / 128),  # none, that of rank 1 or that of rank 2
        ([0, 0, 1, 2, 3, 4, 5, 6], 2 / 64),
        ([-1, -1, -1, 1, 1, 1], 1.0),
    ],
)
def test_signed_rank_by_hand(difference: list[float], p: float) -> None:
    assert signed_rank_p(np.array(difference)) == pytest.approx(p, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-9, 9).filter(bool), min_size=6, max_size=9), st.integers(0, 3))
def test_signed_rank_with_ties_and_zeros(values: list[int], zeros: int) -> None:
    p = signed_rank_p(np.array(values + [0] * zeros) / 20)
    assert p == pytest.approx(signed_rank_by_definition(values), rel=1e-9)
    assert signed_rank_p(-np.array(values[::-1])) == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("values", [[], [1.0], [1, 2, 3, 4, 5], [0.0] * 20, [0, 1, 2, 3, 4, 5]])
def test_too_few_pairs_have_no_p(values: list[float]) -> None:
    assert math.isnan(signed_rank_p(np.array(values)))


def test_differences_that_are_equal_on_paper_are_equal() -> None:
    first, second = np.array([0.9, 0.4, 0.5]), np.array([0.8, 0.3, 0.5])
    assert 0.9 - 0.8 != 0.4 - 0.3
    difference = paired_difference(first, second)
    assert difference[0] == difference[1] == 0.1
    assert not np.signbit(paired_difference(second, second)).any()


def holm_by_definition(p: list[float]) -> list[float]:
    """The smallest level at which the step-down procedure rejects each hypothesis."""
    known = sorted(value for value in p if not math.isnan(value))
    adjusted = []
    for value in p:
        steps = [min(1.0, (len(p) - k) * q) for k, q in enumerate(known) if q <= value]
        adjusted.append(max(steps, default=math.nan))
    return adjusted


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06], rtol=1e-15)
    np.testing.assert_allclose(holm(np.array([0.5, 0.02])), [0.5, 0.04], rtol=1e-15)
    np.testing.assert_array_equal(holm(np.array([0.02, math.nan])), [0.04, math.nan])
    assert holm(np.array([])).shape == (0,)


@given(st.lists(_p, max_size=8))
def test_holm_by_definition(values: list[float]) -> None:
    p = np.array(values)
    adjusted = holm(p)
    np.testing.assert_array_equal(adjusted, holm_by_definition(values))
    known = ~np.isnan(p)
    assert (adjusted[known] >= p[known]).all()
    assert (np.diff(adjusted[known][np.argsort(p[known])]) >= 0).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.inf])
def test_holm_refuses(p: float) -> None:
    with pytest.raises(ValueError, match=r"p must lie in 0\.\.1"):
        holm(np.array([0.5, p]))


def test_win_matrix_by_hand() -> None:
    # Two seeds, two rounds: the first strategy wins 0.6:0.5 and 0.8:0.7, loses 0.4:0.5, ties once.
    accuracy = np.array([[[0.6, 0.8], [0.5, 0.7]], [[0.4, 0.9], [0.5, 0.9]]])
    np.testing.assert_array_equal(win_matrix(accuracy), [[0, 0.5], [0.25, 0]])
    assert not win_matrix(np.full((3, 2, 4), 0.5)).any()


@given(_tables(), st.randoms(use_true_random=False))
def test_wins_losses_and_ties_are_all(accuracy: np.ndarray, random) -> None:
    wins = win_matrix(accuracy)
    ties = (accuracy[:, :, None] == accuracy[:, None]).mean(axis=(0, 3))
    # Three quotients, each rounded to a unit of at most 2^-53, and their sum.
    np.testing.assert_allclose(wins + wins.T + ties, 1, rtol=0, atol=1e-15)
    order = list(range(len(accuracy)))
    random.shuffle(order)
    np.testing.assert_array_equal(win_matrix(accuracy[order]), wins)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_accuracy_that_is_no_number_is_refused(bad: float) -> None:
    values = np.array([0.5, bad])
    with pytest.raises(ValueError, match="must be finite"):
        area_under_curve(np.array([20, 30]), values)
    with pytest.raises(ValueError, match="must be finite"):
        mean_and_interval(values)
    with pytest.raises(ValueError, match="must be finite"):
        paired_difference(values, np.zeros(2))
    with pytest.raises(ValueError, match="must be finite"):
        signed_rank_p(values)
    with pytest.raises(ValueError, match="must be finite"):
        win_matrix(values.reshape(1, 2, 1))


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        mean_and_interval(np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"\[seeds, strategies, rounds\]"):
        win_matrix(np.zeros((2, 2, 0)))
    with pytest.raises(ValueError, match="one shape"):
        paired_difference(np.zeros(2), np.zeros(3))
