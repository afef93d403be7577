"""Perturbation at an inner point: LDRScorer(model, encode=...)."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from small_network import normal
from torch import nn

from vaal_ext.scorer import LDRScorer

SETTINGS = {"method": "finite-difference", "xi": 0.05, "eps": 0.5, "num_iters": 3, "seed": 2}

# By differences and exactly; with both signs of r the samples come in one batch of twice the size.
SEARCHES = [{}, {"sign": "max"}, *({"method": m, "xi": None} for m in ("fisher", "direct"))]


def layers(*sizes, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = [nn.Linear(a, b).double() for a, b in pairwise(sizes)]
    parts = [part for layer in linear for part in (layer, nn.Tanh())]
    return nn.Sequential(*parts[:-1]).double()


class TextNetwork(nn.Module):
    """Token ids [B, T], 0 for padding; the mean of the tokens' embeddings, mixed, to logits."""

    def __init__(self, leak=False):
        super().__init__()
        self.embedding = nn.Embedding(20, 6, dtype=torch.float64)
        with torch.no_grad():
            self.embedding.weight.copy_(normal(20, 6, seed=4))
        self.head = layers(6, 12, 4)
        self.leak = leak

    def encode(self, ids):
        return self.embedding(ids), ids != 0, ids

    def forward(self, point, mask, ids):
        assert torch.equal(mask, ids != 0)
        weight = torch.ones_like(mask) if self.leak else mask
        weight = weight.unsqueeze(-1).to(point.dtype)
        return self.head((point.tanh() * weight).sum(1) / weight.sum(1).clamp(min=1))


def texts(n=30, length=7):
    """int64 [n, length]: texts of 1 to `length` tokens, padded to the right."""
    generator = torch.Generator().manual_seed(6)
    ids = torch.randint(1, 20, (n, length), generator=generator)
    lengths = torch.randint(1, length + 1, (n, 1), generator=generator)
    return ids.masked_fill(torch.arange(length) >= lengths, 0)


def score(model, pool, **settings):
    return LDRScorer(model, **(SETTINGS | settings)).score(pool, progress=False)


@pytest.mark.rounding
@pytest.mark.parametrize("search", SEARCHES)
def test_the_scores_are_those_of_what_follows_the_point(backend, search):
    features, head, x = layers(5, 9), layers(9, 7, 4, seed=1), normal(40, 5)
    with torch.no_grad():
        points = features(x)
    settings = {"backend": backend, "batch_size": 16} | search
    got = score(head, x, encode=features, **settings)
    expected = score(head, points, **settings)
    # The features of a batch of 8, 16 or 40 are rounded differently, by 1e-16.
    np.testing.assert_allclose(got.ldr, expected.ldr, rtol=1e-6)
    assert np.array_equal(got.pseudo_label, expected.pseudo_label)


def test_padding_is_neither_moved_nor_counted(backend):
    seen = []

    class Spy(TextNetwork):
        def forward(self, point, mask, ids):
            seen.append((point.detach().clone(), mask))
            return super().forward(point, mask, ids)

    # This network reads padding too: without the mask it would be perturbed.
    network = Spy(leak=True)
    score(network, texts(), encode=network.encode, backend=backend)
    del seen[:3]  # the looks at the first batch
    clean, mask = seen[0]
    for number, (point, _) in enumerate(seen):
        step = point - clean
        assert (step[~mask] == 0).all()
        length = {0: 0.0, len(seen) - 1: SETTINGS["eps"]}.get(number, SETTINGS["xi"])
        # x + xi*u and back: 1e-16 of embeddings of some 10, next to 0.05
        torch.testing.assert_close(
            step.flatten(1).norm(dim=1),
            torch.full((30,), length, dtype=torch.float64),
            rtol=1e-12,
            atol=0,
        )


@pytest.mark.parametrize("search", SEARCHES)
def test_more_padding_to_the_right_changes_nothing(backend, search):
    network, ids = TextNetwork(), texts()
    wider = torch.cat([ids, torch.zeros(30, 5, dtype=torch.int64)], dim=1)
    settings = {"encode": network.encode, "backend": backend} | search
    scores = [score(network, x, **settings) for x in (ids, wider)]
    # float64 throughout, stored as float32
    np.testing.assert_allclose(scores[0].ldr, scores[1].ldr, rtol=1.2e-7)


def test_a_sample_without_anything_that_may_move_is_flat(backend):
    network, ids = TextNetwork(), texts()
    ids[3] = 0
    with pytest.warns(RuntimeWarning, match="LDR is 0 for 1 of 30"):
        scores = score(network, ids, encode=network.encode, backend=backend)
    assert scores.ldr[3] == 0
    assert (np.delete(scores.ldr, 3) > 0).all()


def test_a_mask_of_none_and_a_mask_of_the_points_own_shape():
    head, x = layers(9, 7, 4, seed=1), normal(20, 9)

    def model(point, mask):
        return head(point)

    expected = score(head, x)
    for mask in (None, torch.ones(20, 9, dtype=torch.bool), torch.ones(20, dtype=torch.bool)):
        got = score(model, x, encode=lambda x, mask=mask: (x, mask))
        # A start through a direction of its own is rounded differently.
        np.testing.assert_allclose(got.ldr, expected.ldr, rtol=1.2e-7)


def test_an_encoder_of_its_own_is_lent_too():
    features = nn.Sequential(nn.Linear(5, 9), nn.Dropout(0.5), nn.BatchNorm1d(9)).double()
    head = layers(9, 4).train()
    state = {name: buffer.clone() for name, buffer in features.named_buffers()}
    first, second = (score(head, normal(20, 5), encode=features).ldr for _ in range(2))
    assert np.array_equal(first, second)
    assert features.training
    assert all(module.training for module in features)
    for name, buffer in features.named_buffers():
        assert torch.equal(buffer, state[name])


def test_pools_of_a_dataset_and_of_autos():
    network, ids = TextNetwork(), texts(300)
    plain = score(network, ids, encode=network.encode)
    dataset = torch.utils.data.TensorDataset(ids)
    auto = score(network, dataset, encode=network.encode, batch_size="auto", amp="auto")
    assert plain.num_samples == auto.num_samples == 300


@pytest.mark.parametrize(
    ("encode", "error", "match"),
    [
        (lambda x: x, TypeError, "floating tensor first, got torch.int64"),
        (lambda x: (), TypeError, "floating tensor first, got tuple"),
        (lambda x: x.double().sum(0), ValueError, r"30 samples .* got shape \[7\]"),
        (lambda x: (x.double(), x), TypeError, "mask must be bool, got torch.int64"),
        (lambda x: (x.double(), x[:, 1:] > 0), ValueError, r"\[30, 7\], got \[30, 6\]"),
        (lambda x: (x.double(), None, 3), TypeError, "behind the point, got int"),
        (3, TypeError, "encode must be callable, got int"),
    ],
)
def test_bad_encoders(encode, error, match):
    with pytest.raises(error, match=match):
        score(layers(7, 4), texts(), encode=encode)


@pytest.mark.parametrize("look", [True, False])
def test_an_encoder_that_works_in_place_changes_no_pool(look):
    first, rest = nn.ReLU(inplace=True), layers(6, 12, 4)
    pool = normal(70, 6)
    before = pool.clone()
    scores = score(rest, pool, encode=first, look=look)
    assert torch.equal(pool, before)
    expected = score(rest, pool, encode=nn.ReLU(), look=look)
    np.testing.assert_array_equal(scores.ldr, expected.ldr)
