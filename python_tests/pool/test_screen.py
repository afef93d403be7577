"""LDR only for the samples that can rank above a percentile."""

import itertools
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from same_scores import assert_same
from screened_pool import EPS, Network, deceiving, samples, telling
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler, TensorDataset

from vaal_ext import LDRScorer, PoolScores, select
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool.screen import Screen, audit_size, screen_pays
from vaal_ext.selection import candidate_count, percentile_rank
from vaal_ext.strategies import QueryContext, Vaal


def scores_of(pool, above=None, *, sample_index=None, miss=0.01, network=None, **settings):
    scorer = LDRScorer(network or Network(), eps=EPS, **settings)
    return scorer.score(pool, above=above, miss=miss, sample_index=sample_index, progress=False)


@pytest.fixture(scope="module")
def full():
    return scores_of(telling())


@pytest.fixture(scope="module")
def screened():
    return scores_of(telling(), 90.0)


@pytest.mark.parametrize("left", [1, 7, 40, 300])
@pytest.mark.parametrize("missed", [0, 1, 5, 39, 400])
def test_the_audit_is_the_smallest_that_the_hypergeometric_distribution_allows(left, missed):
    def unseen(drawn):  # that none of missed + 1 among the left is drawn
        return math.comb(left - missed - 1, drawn) / math.comb(left, drawn)

    smallest = 0
    if left > missed:
        smallest = next(drawn for drawn in range(left + 1) if unseen(drawn) <= 0.05)
    assert audit_size(left, missed) == smallest


DIRECT = SearchSettings(eps=1.0)


def answer(screen, ldr, curvature):
    """Does all that the screen asks for, and tells how often each sample was asked for what."""
    asked = {"ldr": np.zeros(len(ldr), int), "curvature": np.zeros(len(ldr), int)}
    for what, turn in screen.turns():
        asked[what][turn] += 1
        screen.curvature[turn] = curvature[turn]
        if what == "ldr":
            screen.ldr[turn] = ldr[turn]
    return asked


def test_an_audit_passes_too_many_misses_in_five_of_a_hundred_pools():
    # 16 candidates are hidden where 15 may be missed: the screen may not see it with probability
    # 5 % at most, in each of 400 pools independently. 37 or more of 400 have one of 2e-4.
    n, passed = 3000, 0
    curvature = np.geomspace(1, 1e-6, n)
    ldr = curvature.astype(np.float32)
    ldr[-16:] = 1.0
    for seed in range(400):
        screen = Screen(np.arange(n), seed=seed, above=90.0, miss=0.05, settings=DIRECT)
        answer(screen, ldr, curvature)
        passed += screen.threshold is not None
        assert screen.scored.all() == (screen.threshold is None)
    assert 0 < passed < 37


def test_where_what_is_scored_fails_others_are_scored_also_at_a_curvature_of_0():
    # The first turn is 9,991 samples, and none of them has an LDR: 1,190 of the others rank above,
    # All whose curvature is not 0 fail, more than the audit makes up for: fewer have an LDR after
    # the first turn than rank above.
    n = 100_000
    curvature = np.zeros(n, dtype=np.float32)
    curvature[:10_000] = np.linspace(2, 1, 10_000)
    ldr = np.where(curvature > 0, np.nan, np.linspace(1, 2, n)).astype(np.float32)
    screen = Screen(np.arange(n), seed=0, above=90.0, miss=0.01, settings=DIRECT)
    answer(screen, ldr, curvature)
    assert screen.threshold is None or screen.threshold > 0
    count = 90_000 - candidate_count(90.0, 90_000) + 1
    known = screen.ldr[~np.isnan(screen.ldr)]
    assert len(known) >= count


@pytest.mark.parametrize(
    ("percentile", "order", "prior"),
    list(
        itertools.product(
            [90.0, 95.0], ["ascending", "descending", "random"], ["uniform", "predicted", None]
        )
    ),
)
def test_the_query_is_that_of_full_scoring(full, screened, percentile, order, prior):
    queries = [
        select(
            scores.ldr, scores.pseudo_label, 200, percentile=percentile, order=order,
            class_prior=prior, posterior_mean=scores.posterior_mean, num_classes=3,
        )
        for scores in (full, screened)
    ]  # fmt: skip
    np.testing.assert_array_equal(*queries)


def test_ldr_is_given_above_the_percentile_and_is_that_of_full_scoring(full, screened):
    above = percentile_rank(full.ldr) > 90.0
    np.testing.assert_array_equal(screened.left_out, ~above)
    np.testing.assert_array_equal(screened.ldr[above], full.ldr[above])
    assert_same(replace(screened, ldr=full.ldr), full)
    assert repr(screened).endswith("5400 left out by the screen)")


def test_a_lower_percentile_or_more_samples_than_are_known_are_refused(screened):
    known = screened.ldr, screened.pseudo_label
    assert len(select(*known, 600, percentile=90.0)) == 600
    with pytest.raises(ValueError, match=r"percentile 80 .* 600 largest .* above=80 or less"):
        select(*known, 10, percentile=80.0)
    with pytest.raises(ValueError, match=r"n = 1200 .* above=80 or less"):
        select(*known, 1200, percentile=90.0)


def test_few_samples_are_scored():
    # At most 6 of the 600 candidates may be missed: 34.8 % of the pool are drawn for the audit. The
    # gain spans a factor of ten, which is 2.3 of the 12 that `sure` spans: of the others 10 % are
    # candidates, and 19 % come after them. Together 54 %, and the looks at the network.
    network = Network()
    scores_of(telling(), 90.0, network=network)
    assert network.searched < 0.6 * 6000


def test_of_what_the_audit_draws_the_clean_logits_are_computed_once():
    network = Network()
    scores_of(telling(), 90.0, network=network)
    # Two forwards of what is scored, and one of all else; again for what was not drawn and is
    # scored (19 %), and for what was drawn and is a candidate (3.5 %). The looks take 64 samples 7
    # times.
    assert network.samples < 6000 * (1 + 0.54 + 0.2 + 0.04) + 7 * 64


class Files(Dataset):
    """Reads its samples one by one, and counts how often."""

    def __init__(self, x):
        self.x, self.read = x, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.read += 1
        return self.x[i]


def test_files_are_read_twice_only_where_they_are_scored(screened):
    files, network = Files(telling()), Network()
    assert_same(scores_of(files, 90.0, network=network), screened)
    # The looks at the network read 64 once more.
    assert files.read < 1.6 * len(files)


def mapped(x, folder):
    np.save(folder / "pool.npy", x.numpy())
    return np.load(folder / "pool.npy", mmap_mode="r")


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (lambda x, folder: x, {"batch_size": 1000}),
        (lambda x, folder: x, {"encode": lambda x: x}),
        (mapped, {"batch_size": 77}),
        (lambda x, folder: TensorDataset(x, torch.arange(len(x))), {"batch_size": 500}),
        (lambda x, folder: DataLoader(TensorDataset(x), batch_size=300, shuffle=True), {}),
        (
            lambda x, folder: DataLoader(
                TensorDataset(x), batch_size=600, num_workers=1, prefetch_factor=3
            ),
            {},
        ),
    ],
)
def test_the_kind_of_pool_and_its_batches_make_no_difference(make, settings, tmp_path, screened):
    assert_same(scores_of(make(telling(), tmp_path), 90.0, **settings), screened)


def test_samples_go_by_their_identity(screened):
    order = torch.randperm(6000, generator=torch.Generator().manual_seed(3))
    moved = scores_of(telling()[order], 90.0, sample_index=order)
    np.testing.assert_array_equal(moved.ldr, screened.ldr[order])


def test_what_a_sampler_leaves_out_is_not_there():
    some = torch.randperm(8000, generator=torch.Generator().manual_seed(4))[:6000]
    pool = telling(8000)
    loader = DataLoader(TensorDataset(pool), batch_size=250, sampler=SubsetRandomSampler(some))
    kept = some.sort().values
    # Which samples these are is known when they have come: so all are scored.
    assert_same(scores_of(loader, 90.0), scores_of(pool[kept], sample_index=kept))


@pytest.mark.parametrize(
    "pool", [deceiving(), samples(torch.linspace(0.1, 0.2, 6000).double(), telling()[:, 2])]
)
def test_where_the_curvature_does_not_tell_all_are_scored_and_it_is_said(pool):
    network, whole = Network(), Network()
    with pytest.warns(RuntimeWarning, match=r"eps=0.1 \(in a random audit \d+ % had to be scored"):
        scores = scores_of(pool, 90.0, network=network)
    assert_same(scores, scores_of(pool, network=whole))
    assert network.samples == whole.samples


def test_a_small_pool_is_scored_at_once():
    network, pool = Network(), telling(500)
    scores = scores_of(pool, 90.0, network=network)
    assert not scores.left_out.any()
    count, network.samples = network.samples, 0
    scores_of(pool, network=network)
    assert network.samples == count
    assert len(scores_of(pool[:0], 90.0)) == 0


def test_what_pays():
    # 10,000 samples: an audit of 2,384, one pass of the others, and of these 15 % at three passes.
    assert screen_pays(10_000, 90.0, 0.01, DIRECT)
    assert screen_pays(2_000, 90.0, 0.01, DIRECT)
    assert not screen_pays(10_000, 40.0, 0.01, DIRECT)
    assert not screen_pays(500, 90.0, 0.01, DIRECT)


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_screen_that_the_audit_advises_against_costs_one_ldr_a_sample(spread, seed):
    # ln(gain) is normal with that deviation, ln(λ) with 2: the wider, the less λ tells.
    rng, n = np.random.default_rng(seed), 2000
    curvature = np.exp(rng.normal(0, 2, n)).astype(np.float32)
    ldr = (curvature * np.exp(rng.normal(0, spread, n))).astype(np.float32)
    screen = Screen(np.arange(n), seed=seed, above=90.0, miss=0.01, settings=DIRECT)
    asked = answer(screen, ldr, curvature)
    assert asked["ldr"].max() == 1
    if "in a random audit" in screen.reason:
        assert spread > 0.3
        np.testing.assert_array_equal(asked["ldr"], 1)
        assert not asked["curvature"].any()
    else:
        assert spread < 2.0
        assert np.count_nonzero(ldr >= screen.threshold) <= 202  # of 200 candidates 2 may be missed
        assert (3 * asked["ldr"] + asked["curvature"]).sum() < 3 * n


@pytest.mark.parametrize(
    ("gain", "at", "audited"),
    [
        # The audit has a candidate of its own at 40 % of the falling order; without it the turns
        # would end before.
        (300.0, 0.4, True),
        # A gain that the audit has not seen, among the first that are scored, lets all others
        # reach the threshold.
        (1e9, 0.01, False),
    ],
)
def test_the_turns_go_on_as_far_as_what_was_scored_demands(gain, at, audited):
    n, settings = 10_000, {"seed": 3, "above": 90.0, "miss": 0.01, "settings": DIRECT}
    curvature = np.geomspace(1, 1e-6, n).astype(np.float32)
    _, audit = next(Screen(np.arange(n), **settings).turns())
    others = np.setdiff1d(np.arange(n), audit)
    some = audit if audited else others
    odd = some[np.argmin(abs(some - at * n))]
    ldr = curvature.copy()
    ldr[odd] *= gain
    assert ldr[odd] > np.sort(ldr)[-1000]
    screen = Screen(np.arange(n), **settings)
    asked = answer(screen, ldr, curvature)
    assert asked["ldr"].max() == 1
    assert asked["curvature"].sum() == len(others)
    if audited:
        assert screen.threshold == np.sort(ldr)[-1000]
        np.testing.assert_array_equal(screen.scored[others], others < odd)
    else:
        assert "two thirds of the others" in screen.reason
        assert screen.threshold is None
        assert screen.scored.all()


def test_a_file_keeps_what_was_left_out(screened, tmp_path):
    screened.save(tmp_path / "scores.npz")
    assert_same(PoolScores.load(tmp_path / "scores.npz"), screened)


class Gaps(Files):
    def __getitem__(self, i):
        return None if i % 100 == 5 else self.x[i]


def test_what_has_no_score_is_told_from_what_was_left_out():
    x = telling()
    x[::50, 0] = torch.nan
    x[7, 0] = torch.nan
    scores = scores_of(Gaps(x), 90.0, on_nonfinite="skip")
    expected = scores_of(Gaps(x), on_nonfinite="skip")
    none = np.isnan(expected.ldr)
    assert none.sum() == 120 + 1 + 60
    np.testing.assert_array_equal(np.isnan(scores.ldr), none)
    np.testing.assert_array_equal(scores.left_out, ~none & ~(percentile_rank(expected.ldr) > 90.0))
    assert_same(replace(scores, ldr=expected.ldr), expected)
    with pytest.raises(ValueError, match=r"sample (7|\d*[05]0): the model's logits are not finite"):
        scores_of(x, 90.0)


class Breaks(Network):
    """Not finite at x + r, for every tenth sample."""

    def forward(self, x):
        logits = super().forward(x)
        moved = (x[:, 1] != 0) & ((x[:, 3] * 0 + x[:, 2] * 1e4).round() % 10 == 0)
        return logits.masked_fill(moved[:, None], torch.nan)


def test_samples_that_break_at_their_perturbation():
    with pytest.raises(ValueError, match="are not finite"):
        scores_of(telling(), 90.0, network=Breaks())
    scores = scores_of(telling(), 90.0, network=Breaks(), on_nonfinite="skip")
    failed = np.isnan(scores.ldr)
    assert 50 < failed.sum() < 400
    assert (scores.pseudo_label[failed] == -1).all()
    assert np.isnan(scores.entropy[failed]).all()
    # Those that rank above are of those that have a score.
    ranked = 6000 - failed.sum()
    assert np.isfinite(scores.ldr).sum() == ranked - candidate_count(
        90.0, ranked
    ) + 1  # fmt: skip


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, "above must be below 100", {"above": 100}),
        (TypeError, "above must be a number", {"above": "90"}),
        (ValueError, "miss must be above 0 and below 1, got 0", {"above": 90, "miss": 0}),
        (
            ValueError,
            "above must be None with smoothing",
            {"above": 90, "method": "finite-difference", "xi": 0.1, "smoothing": 0.1},
        ),
    ],
)
def test_bad_arguments(error, message, settings):
    network = Network()
    with pytest.raises(error, match=message):
        scores_of(telling(), network=network, **settings)
    assert network.samples == 0


CONTEXT = QueryContext(np.arange(6000) + 50, num_classes=3, seed=4, n=100)


@pytest.mark.parametrize(
    ("settings", "changes", "left_out"),
    [
        ({}, {}, 5400),
        ({"percentile": "accuracy"}, {"val_accuracy": 0.95}, 5700),
        ({"percentile": "accuracy"}, {"val_accuracy": 1.0}, 0),  # of 100 one may be missed
        ({}, {"n": 900}, 5100),  # 300 of them are from below the percentile
        ({}, {"n": None}, 0),
        ({}, {"n": 6000}, 0),
        ({}, {"n": 5000}, 0),  # of so many few can be left out
        ({"method": "finite-difference", "xi": 0.01, "smoothing": 0.1}, {}, 0),
        ({"method": "finite-difference", "xi": 0.01}, {}, 0),
    ],
)
def test_vaal_screens_for_its_query(settings, changes, left_out):
    context, strategy = replace(CONTEXT, **changes), Vaal(eps=EPS, **settings)
    scores = strategy.score(Network(), telling(), context)
    assert scores.left_out.sum() == left_out
    whole = strategy.score(Network(), telling(), replace(context, n=None))
    assert not whole.left_out.any()
    n = context.n or 100
    picked = [strategy.pick(s, n, context).tolist() for s in (scores, whole)]
    assert picked[0] == picked[1]


def test_vaal_scores_all_where_too_few_can_be_read():
    x = telling()
    context = replace(CONTEXT, n=900)
    unreadable = Gaps(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = Vaal(eps=EPS).score(Network(), unreadable, context)
    assert len(Vaal(eps=EPS).pick(scores, 900, context)) == 900
