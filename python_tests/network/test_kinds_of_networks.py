"""Networks that write to buffers, checkpoint, are wrapped in another module, or compiled."""

import numpy as np
import pytest
import torch
from small_network import network, normal
from torch import nn
from torch.utils.checkpoint import checkpoint

from vaal_ext import LDRScorer, ldr_scores
from vaal_ext.network.state import unwrapped
from vaal_ext.perturbation.deepfool import deepfool
from vaal_ext.scorer import posterior_scores
from vaal_ext.vat import vat_loss

STEP = {"eps": 0.5, "num_iters": 2}
FISHER = {"eps": 0.5, "num_iters": 2, "method": "fisher"}


# --- logits in a buffer that is used again --------------------------------------------------------


class Reusing(nn.Module):
    """Writes every batch's logits to the same place."""

    def __init__(self):
        super().__init__()
        self.inner = network()
        self.place = torch.empty(0)

    def forward(self, x):
        logits = self.inner(x)
        if len(self.place) < len(logits):
            self.place = logits.new_empty(logits.shape)
        self.place = self.place.detach()
        return self.place[: len(logits)].copy_(logits)


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("settings", [STEP, FISHER], ids=["differences", "fisher"])
@pytest.mark.parametrize("sign", ["paper", "max"])
def test_logits_in_a_buffer_score_as_others_do(backend, settings, sign):
    settings, x = {**settings, "sign": sign, "backend": backend}, normal(9)
    expected = ldr_scores(network(), x, **settings)
    assert (expected > 0).all()
    assert torch.equal(ldr_scores(Reusing(), x, **settings), expected)
    scores, plain = (
        LDRScorer(model, **settings, batch_size=4).score(x, progress=False)
        for model in (Reusing(), network())
    )
    for name in ("ldr", "pseudo_label", "entropy", "margin", "posterior_mean"):
        assert np.array_equal(getattr(scores, name), getattr(plain, name)), name


def test_logits_in_a_buffer_serve_deepfool_vat_and_the_posterior():
    x = normal(9)
    found, plain = (deepfool(model, x) for model in (Reusing(), network()))
    assert torch.equal(found.logits, plain.logits)
    assert torch.equal(found.perturbation, plain.perturbation)
    assert torch.equal(vat_loss(Reusing(), x, **STEP), vat_loss(network(), x, **STEP))
    scores, alone = (
        posterior_scores(model, x, batch_size=4, progress=False) for model in (Reusing(), network())
    )
    assert np.array_equal(scores.entropy, alone.entropy)


# --- buffers that a forward makes -----------------------------------------------------------------


class Registering(nn.Module):
    """Keeps what it has seen in buffers that the first forward makes."""

    def __init__(self):
        super().__init__()
        self.inner = network()
        self.register_buffer("mean", None)

    def forward(self, x):
        logits = self.inner(x)
        self.mean = logits.detach().mean(0)
        if "last" not in self._buffers:
            self.register_buffer("last", logits.detach(), persistent=False)
        return logits


@pytest.mark.parametrize("settings", [STEP, FISHER], ids=["differences", "fisher"])
def test_buffers_that_a_forward_makes_are_gone_after_vat(settings):
    model, x = Registering().train(), normal(9)
    loss = vat_loss(model, x, **settings)
    assert model._buffers == {"mean": None}
    assert model._non_persistent_buffers_set == set()
    assert torch.equal(loss, vat_loss(network(), x, **settings))
    loss.backward()
    ldr_scores(model, x, **settings)
    assert model._buffers == {"mean": None}
    assert model._non_persistent_buffers_set == set()


# --- checkpoints, wrappers, torch.compile ---------------------------------------------------------


def test_reentrant_checkpoints_are_told_in_our_words():
    inner = network()

    def model(x, reentrant=True):
        return checkpoint(inner, x, use_reentrant=reentrant)

    for work in (ldr_scores, vat_loss):
        with pytest.raises(ValueError, match="use_reentrant=False"):
            work(model, normal(5), **STEP)
    got = ldr_scores(lambda x: model(x, reentrant=False), normal(5), **STEP)
    assert torch.equal(got, ldr_scores(inner, normal(5), **STEP))


def test_a_wrapped_network_is_scored_without_its_wrapper():
    """DataParallel would be called in every forward; here it must not be."""

    class Wrapped(nn.DataParallel):
        def forward(self, *inputs, **named):
            raise AssertionError("called")

    inner, x = network(between=[nn.BatchNorm1d(16)]), normal(9)
    wrapped = Wrapped(inner)
    assert unwrapped(Wrapped(wrapped)) is inner
    assert torch.equal(ldr_scores(wrapped, x, **STEP), ldr_scores(inner, x, **STEP))
    assert torch.equal(deepfool(wrapped, x).norm, deepfool(inner, x).norm)
    scores, plain = (
        LDRScorer(model, **STEP).score(x, progress=False) for model in (wrapped, inner)
    )
    assert np.array_equal(scores.ldr, plain.ldr)
    features, head = Wrapped(inner[:2]), Wrapped(inner[2:])
    inside = LDRScorer(head, encode=features, **STEP).score(x, progress=False)
    plain = LDRScorer(inner[2:], encode=inner[:2], **STEP).score(x, progress=False)
    assert np.array_equal(inside.ldr, plain.ldr)
    assert wrapped.training


@pytest.mark.slow
@pytest.mark.parametrize("sign", ["paper", "max"])
def test_vat_is_traced_whole(sign):
    """torch.compile(fullgraph=True) refuses whatever it cannot put into one graph."""
    model, x = network(between=[nn.BatchNorm1d(16)]).train(), normal(9)

    def step(x):
        return vat_loss(model, x, **STEP, sign=sign, entropy_weight=0.1)

    expected = step(x)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    torch._dynamo.reset()
    loss = torch.compile(step, fullgraph=True, backend="aot_eager")(x)
    # float64, and the same operations but for those that are taken apart: some 1e-16 of each.
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    for mine, theirs in zip(
        torch.autograd.grad(loss, list(model.parameters())), gradients, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)
