"""select, percentile_rank and class_quotas against brute force, and their rules one by one."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaal_ext.selection import (
    accuracy_percentile,
    candidate_count,
    class_quotas,
    percentile_rank,
    select,
)

# Few distinct values, so that ties, NaN and infinities are common.
_score = st.sampled_from([math.nan, 0.0, 1e-30, 0.25, 0.5, 1.0, 7.0, math.inf])
_scores = st.one_of(
    st.lists(_score, min_size=1, max_size=40),
    st.lists(st.floats(0, 100, width=32), min_size=1, max_size=40),
)


def rank_by_definition(scores: list[float]) -> list[Fraction | None]:
    """100 * #{j : s_j <= s_i} / N over the samples with a score, exactly."""
    known = [s for s in scores if not math.isnan(s)]
    return [
        None if math.isnan(s) else Fraction(100 * sum(t <= s for t in known), len(known))
        for s in scores
    ]


def quotas_by_definition(n: int, prior: list[int]) -> list[int]:
    """Largest remainder, one seat at a time, in exact arithmetic."""
    shares = [Fraction(n * weight, sum(prior)) for weight in prior]
    quotas = [math.floor(share) for share in shares]
    while sum(quotas) < n:
        behind = [share - quota for share, quota in zip(shares, quotas, strict=True)]
        quotas[behind.index(max(behind))] += 1
    return quotas


def select_by_definition(scores, labels, n, percentile, prior, order):
    """Algorithm 1 as the text has it: sample by sample, without sorting or vectors."""
    ranks = rank_by_definition(scores)
    left = [i for i, rank in enumerate(ranks) if rank is not None and rank > percentile]
    below = [i for i, rank in enumerate(ranks) if rank is not None and rank <= percentile]

    def take(pool, smallest):
        best = pool[0]
        for i in pool:  # strict comparison: ties stay with the smaller index
            if scores[i] < scores[best] if smallest else scores[i] > scores[best]:
                best = i
        pool.remove(best)
        return best

    picked = []
    if prior is not None:
        for label, quota in enumerate(quotas_by_definition(n, prior)):
            own = [i for i in left if labels[i] == label]
            for _ in range(min(quota, len(own))):
                picked.append(take(own, order == "ascending"))
                left.remove(picked[-1])
    while len(picked) < n and left:
        picked.append(take(left, order == "ascending"))
    while len(picked) < n:
        picked.append(take(below, False))
    return picked


@given(_scores)
def test_percentile_rank_is_its_definition(scores):
    ranks = percentile_rank(scores)
    for rank, exact in zip(ranks, rank_by_definition(scores), strict=True):
        assert np.isnan(rank) if exact is None else rank == float(exact)


@given(_scores)
def test_percentile_rank_of_some(scores):
    positions = np.arange(len(scores))[::-2]
    expected = percentile_rank(scores)[positions]
    np.testing.assert_array_equal(percentile_rank(scores, positions), expected)


@given(st.floats(0, 100, exclude_max=True), st.integers(1, 300))
def test_candidate_count_is_where_ranks_are_above(percentile, size):
    above = percentile_rank(np.arange(size)) > percentile
    assert candidate_count(percentile, size) == size - np.count_nonzero(above) + 1


@given(st.floats(0, 1), st.integers(1, 50), st.integers(0, 200))
def test_a_percentile_from_the_accuracy_leaves_candidates(accuracy, n, more):
    """As many candidates as pseudo labels are likely to be wrong, and never fewer than n."""
    size = n + more
    percentile = accuracy_percentile(accuracy, n, size)
    assert 0 <= percentile < 100
    candidates = np.count_nonzero(percentile_rank(np.arange(size)) > percentile)
    assert candidates >= n
    assert abs(candidates - max(n, size * (1 - accuracy))) <= 1


def test_a_percentile_from_a_bad_accuracy():
    with pytest.raises(ValueError, match=r"accuracy must be in \[0, 1\], got 1.5"):
        accuracy_percentile(1.5, 1, 10)
    with pytest.raises(ValueError, match="pool_size must be at least 5"):
        accuracy_percentile(0.5, 5, 4)


def test_percentile_rank_of_nothing():
    assert percentile_rank([]).shape == (0,)
    assert np.isnan(percentile_rank([math.nan, math.nan])).all()


@given(st.integers(0, 500), st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_quotas_are_largest_remainder(n, prior):
    prior[0] += 1
    assert class_quotas(n, prior).tolist() == quotas_by_definition(n, prior)


def test_equal_remainders_favour_the_smaller_class_in_decimals_too():
    assert class_quotas(12, np.ones(10)).tolist() == [2, 2] + 8 * [1]
    assert class_quotas(5, [0.3, 0.7]).tolist() == [2, 3]
    assert class_quotas(5, [0.7, 0.3]).tolist() == [4, 1]
    assert class_quotas(100, np.full(10, 0.1)).tolist() == 10 * [10]
    assert class_quotas(3, [1e300, 1e300, 1e300]).tolist() == [1, 1, 1]


@st.composite
def selections(draw):
    scores = draw(_scores)
    num_classes = draw(st.integers(1, 5))
    labels = draw(
        st.lists(st.integers(0, num_classes - 1), min_size=len(scores), max_size=len(scores))
    )
    known = sum(not math.isnan(s) for s in scores)
    if known == 0:
        scores[0], known = 1.0, 1
    n = draw(st.integers(1, known))
    percentile = draw(st.sampled_from([0, 10, 50, 70, 90, 99, 99.5]))
    weights = st.lists(st.integers(0, 5), min_size=num_classes, max_size=num_classes)
    prior = draw(st.one_of(st.none(), st.just("uniform"), weights.filter(any)))
    return scores, labels, n, percentile, prior, num_classes


@given(selections(), st.sampled_from(["ascending", "descending"]))
def test_select_is_algorithm_1(case, order):
    scores, labels, n, percentile, prior, num_classes = case
    picked = select(
        scores, labels, n,
        percentile=percentile, class_prior=prior, order=order, num_classes=num_classes,
    )  # fmt: skip
    exact_prior = [1] * num_classes if prior == "uniform" else prior
    expected = select_by_definition(scores, labels, n, percentile, exact_prior, order)
    assert picked.dtype == np.int64
    assert sorted(picked.tolist()) == sorted(expected)
    if prior is None:
        assert picked.tolist() == expected


@given(selections(), st.integers(0, 3))
def test_random_order_keeps_every_other_rule(case, seed):
    scores, labels, n, percentile, prior, num_classes = case
    settings = {
        "percentile": percentile,
        "class_prior": prior,
        "num_classes": num_classes,
    }
    picked = select(scores, labels, n, order="random", seed=seed, **settings)
    again = select(scores, labels, n, order="random", seed=seed, **settings)
    assert picked.tolist() == again.tolist()
    assert len(set(picked.tolist())) == n
    ranks = percentile_rank(scores)
    assert not np.isnan(ranks[picked]).any()
    # As many candidates, as many of each class by quota, and the same samples below the threshold.
    ascending = select(scores, labels, n, order="ascending", **settings)
    assert picked[ranks[picked] <= percentile].tolist() == (
        ascending[ranks[ascending] <= percentile].tolist()
    )
    if prior is not None:
        weights = [1] * num_classes if prior == "uniform" else prior
        quotas = quotas_by_definition(n, weights)
        for label, quota in enumerate(quotas):
            own = [i for i in range(len(scores)) if labels[i] == label and ranks[i] > percentile]
            assert sum(labels[i] == label for i in picked) >= min(quota, len(own))


def test_random_order_draws():
    scores, labels = np.arange(1000.0), np.zeros(1000, dtype=int)
    one, two = (select(scores, labels, 20, order="random", seed=seed) for seed in (0, 1))
    assert set(one.tolist()) != set(two.tolist())
    assert min(one) >= 900
    assert min(two) >= 900


def test_the_order_in_which_samples_are_picked():
    #         0    1    2    3    4    5    6    7
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    labels = [0, 1, 1, 0, 0, 0, 0, 1]
    # Candidates are 4 to 7. Three a class: 0 gives 4, 5, 6 and 1 only 7; then down from 3.
    picked = select(scores, labels, 6, percentile=50)
    assert picked.tolist() == [4, 5, 6, 7, 3, 2]
    # Two a class: 4, 5 and 7; class 1 is one short and hands on to 6, not to its own 2.
    assert select(scores, labels, 4, percentile=50).tolist() == [4, 5, 7, 6]
    assert select(scores, labels, 4, percentile=50, order="descending").tolist() == [
        7,
        6,
        5,
        4,
    ]
    assert select(scores, labels, 3, percentile=50, class_prior=None).tolist() == [
        4,
        5,
        6,
    ]


def test_exactly_the_percentile_is_no_candidate():
    scores, labels = np.arange(10.0), np.zeros(10, dtype=int)
    assert select(scores, labels, 1, percentile=90).tolist() == [9]
    assert select(scores, labels, 1, percentile=89.9).tolist() == [8]
    assert select(scores, labels, 10, percentile=0).tolist() == list(range(10))


def test_ties_go_to_the_smaller_index():
    scores, labels = np.ones(20), np.zeros(20, dtype=int)
    for order in ("ascending", "descending"):
        assert select(scores, labels, 3, order=order).tolist() == [0, 1, 2]


def test_infinite_scores_rank_highest_and_nan_is_left_out():
    scores = [math.nan, 1.0, math.inf, 2.0, math.nan]
    labels = [-1, 0, 0, 0, -1]  # a sample without a score needs no pseudo label
    picked = select(scores, labels, 3, percentile=50, order="descending")
    assert picked.tolist() == [2, 3, 1]
    with pytest.raises(ValueError, match="at most the 3 samples"):
        select(scores, labels, 4)


def test_the_class_prior():
    scores, labels = np.arange(100.0), np.arange(100) % 2
    quarter = select(scores, labels, 4, percentile=50, class_prior=[1, 3])
    assert np.bincount(labels[quarter]).tolist() == [1, 3]
    mean = np.array([0.75, 0.25])
    predicted = select(
        scores, labels, 4, percentile=50, class_prior="predicted", posterior_mean=mean
    )
    assert np.bincount(labels[predicted]).tolist() == [3, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_are_taken(dtype):
    scores = torch.arange(100).to(dtype)
    labels = torch.arange(100) % 10
    from_arrays = select(scores.double().numpy(), labels.numpy(), 10)
    assert select(scores.requires_grad_(), labels, 10).tolist() == from_arrays.tolist()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"n": 2.0}, TypeError, "n must be an int"),
        ({"n": True}, TypeError, "n must be an int"),
        ({"n": 5}, ValueError, "at most the 4 samples with a score, got 5"),
        ({"percentile": 100}, ValueError, "nothing ranks above it"),
        ({"percentile": 100.5}, ValueError, r"\[0, 100\), got 100.5"),
        ({"percentile": -1}, ValueError, r"\[0, 100\), got -1"),
        ({"percentile": math.nan}, ValueError, r"\[0, 100\), got nan"),
        ({"percentile": "90"}, TypeError, "percentile must be a number"),
        ({"scores": [1.0, 2.0]}, ValueError, "one length, got 2 and 4"),
        ({"scores": [[1.0, 2.0, 3.0, 4.0]]}, ValueError, "one dimension"),
        ({"scores": ["a", "b", "c", "d"]}, TypeError, "real numbers"),
        ({"pseudo_labels": [0, 1, 2, -1]}, ValueError, r"\[0, 3\), got -1 to 2"),
        (
            {"pseudo_labels": [0, 1, 2, 3], "num_classes": 3},
            ValueError,
            r"\[0, 3\), got 0 to 3",
        ),
        ({"pseudo_labels": [0.0, 1.0, 2.0, 3.0]}, TypeError, "integers"),
        ({"order": "up"}, ValueError, "ascending, descending, random, got 'up'"),
        ({"class_prior": "even"}, ValueError, "got 'even'"),
        ({"class_prior": "predicted"}, ValueError, "needs posterior_mean"),
        ({"class_prior": [1, 2], "num_classes": 3}, ValueError, "3 classes, got 2"),
        ({"class_prior": [1, -2, 0]}, ValueError, "weights >= 0"),
        ({"class_prior": [math.nan, 1, 1]}, ValueError, "weights >= 0"),
        ({"class_prior": [0, 0, 0]}, ValueError, "above 0"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    arguments = {
        "scores": [1.0, 2.0, 3.0, 4.0],
        "pseudo_labels": [0, 1, 2, 0],
        "n": 2,
    } | change
    with pytest.raises(error, match=message):
        select(arguments.pop("scores"), arguments.pop("pseudo_labels"), **arguments)
