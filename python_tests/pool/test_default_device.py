"""Scores do not depend on torch.set_default_device: on meta, whoever followed it would fail. On a
GPU the default device is the one that the network lies on, as people have it.

(A network that makes tensors of its own may follow it, so it is not switched off around scores.)
"""

from __future__ import annotations

import numpy as np
import pytest
import screened_pool
import torch
from small_network import network, normal
from torch.utils.data import DataLoader, TensorDataset

from vaal_ext.experiment import training
from vaal_ext.perturbation.deepfool import deepfool
from vaal_ext.perturbation.ldr import ldr_scores
from vaal_ext.pool.radius import small_radius
from vaal_ext.pool.shards import read_shards
from vaal_ext.scorer import LDRScorer, deepfool_scores, posterior_scores
from vaal_ext.vat import vat_loss

pytestmark = pytest.mark.filterwarnings("ignore:LDR ranks samples of the pool otherwise")
SIZE = 70
CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    ],
)


def assert_alike(found, expected):
    """A shuffled loader makes other batches: float64 logits round otherwise, far below float32."""
    for name in ("index", "pseudo_label"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("ldr", "entropy", "margin", "perturbation_norm"):
        columns = (getattr(scores, name) for scores in (found, expected))
        np.testing.assert_allclose(*(0.0 if c is None else c for c in columns), rtol=1.2e-7)


@pytest.fixture(params=["meta", CUDA])
def default(request):
    """The default device of the second call."""
    return request.param


@pytest.fixture
def home(default):
    """Where networks and batches lie."""
    return torch.device("cpu" if default == "meta" else default)


@pytest.fixture
def same(default):
    """Compares what a call gives with what it gives with that default device."""

    def compare(call, alike=assert_alike):
        expected = call()
        torch.set_default_device(default)
        try:
            found = call()
            assert torch.get_default_device().type == default
        finally:
            torch.set_default_device(None)
        alike(found, expected)

    return compare


def shuffled(generator):
    return DataLoader(TensorDataset(normal(SIZE)), batch_size=9, shuffle=True, generator=generator)


POOLS = {
    "tensor": lambda: normal(SIZE),
    "array": lambda: normal(SIZE).numpy(),
    "dataset": lambda: TensorDataset(normal(SIZE)),
    "list": lambda: [row.numpy() for row in normal(SIZE)],
    "loader": lambda: shuffled(None),
    "loader with a generator": lambda: shuffled(torch.Generator().manual_seed(3)),
}


@pytest.mark.parametrize("pool", POOLS)
def test_pools_of_every_kind(pool, same, home):
    model, samples, index = network().to(home), POOLS[pool](), torch.arange(SIZE) + 100

    def call():  # looks at the network, every time
        scorer = LDRScorer(model, eps=0.01, batch_size=9)
        return scorer.score(samples, sample_index=index, progress=True)

    same(call)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "finite-difference", "xi": 0.001},
        {"method": "fisher"},
        {"sign": "max"},
        {"backend": "reference"},
        {"backend": "reference", "method": "finite-difference", "xi": 0.001},
    ],
    ids=str,
)
def test_every_search(settings, same, home):
    scorer, pool = LDRScorer(network().to(home), eps=0.01, **settings), normal(SIZE)
    same(lambda: scorer.score(pool, progress=False))


def test_what_is_chosen_by_trial(same, home):
    model, pool = network(dtype=torch.float32).to(home), normal(300, dtype=torch.float32)

    def call():
        scorer = LDRScorer(model, eps=0.01, amp="auto", batch_size="auto")
        return scorer.score(pool, progress=False).num_samples

    same(call, equal)


def test_the_screen(same):
    scorer, pool = (
        LDRScorer(screened_pool.Network(), eps=screened_pool.EPS),
        screened_pool.telling(),
    )

    def call():
        scores = scorer.score(pool, above=90.0, progress=False)
        assert np.isneginf(scores.ldr).any()
        return scores

    same(call)


def test_shards(tmp_path, same, home):
    scorer, pool = LDRScorer(network().to(home), eps=0.01), TensorDataset(normal(SIZE))
    folders = iter(["plain", "meta"])

    def call():
        folder = tmp_path / next(folders)
        scorer.score_shards(pool, folder, shard_size=30, progress=False)
        return read_shards(folder)

    same(call)


def test_bytes(same):
    pool = torch.randint(256, (20, 3, 4, 4), generator=torch.Generator().manual_seed(1)).byte()

    def call():
        scorer = LDRScorer(lambda x: x.flatten(1)[:, :5], eps=1.0, normalize=(0.5, [0.2, 0.3, 0.4]))
        return scorer.score(pool, progress=False)

    same(call)


@pytest.mark.parametrize("scores", [posterior_scores, deepfool_scores])
def test_what_needs_no_ldr(scores, same, home):
    model, pool = network().to(home), normal(20)
    same(lambda: scores(model, pool, progress=False))


def equal(found, expected):
    np.testing.assert_array_equal(found, expected)


def test_batches_of_ones_own(same, home):
    model, x = network().to(home), normal(6).to(home)
    same(lambda: ldr_scores(model, x, eps=1.0).cpu().numpy(), equal)
    same(lambda: deepfool(model, x).norm.cpu().numpy(), equal)
    same(lambda: vat_loss(model, x, eps=1.0).item(), equal)
    same(lambda: small_radius(TensorDataset(x.cpu())), equal)


def test_the_batches_of_a_training(same, home):
    def call():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            batches = training._batches(10, 4, home)
            return torch.cat([next(batches) for _ in range(5)]).cpu().numpy()

    same(call, equal)
