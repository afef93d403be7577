"""LDR of a batch and of a pool: the right numbers, the same numbers however they are asked for."""

import numpy as np
import pytest
import torch
from rounding import logits_apart, scores_apart
from small_network import normal
from textbook import textbook_divergence
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vaal_ext import LDRScorer, ldr_scores, reference
from vaal_ext.models import PaperCNN
from vaal_ext.pool.scores import PoolScores
from vaal_ext.scorer import posterior_scores


def smooth_mlp(dtype=torch.float64, classes=5, features=20, seed=0):
    """Smooth, so that rounding moves its gradient by rounding (at a kink of a ReLU it jumps)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(features, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, classes)
        )
        for parameter in model.parameters():
            parameter.data.mul_(2)
    return model.to(dtype).eval()


# --- the right numbers ------------------------------------------------------------------------


def textbook_ldr(
    model, x, index, *, method="finite-difference", xi, eps, num_iters, seed, smoothing, divergence
):
    """Eq. (1) and (4) as they stand: autograd through the divergence, a loop over the samples."""
    scores = []
    for sample, i in zip(x, index, strict=True):
        sample, i = sample.unsqueeze(0), i.unsqueeze(0)
        u = reference.random_perturb(torch.zeros_like(sample), 1.0, seed=seed, sample_index=i)
        a = model(sample).detach()
        for _ in range(num_iters):
            u.requires_grad_()
            value = textbook_divergence(a, model(sample + xi * u), smoothing, divergence)
            (gradient,) = torch.autograd.grad(value, u)
            u = gradient / gradient.norm()
        scores.append(textbook_divergence(a, model(sample + eps * u), smoothing, divergence))
    return torch.cat(scores).detach()


@pytest.mark.rounding
@pytest.mark.parametrize("divergence", ["symmetric", "forward"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_iters", [1, 4])
def test_ldr_is_the_textbooks(backend, divergence, smoothing, num_iters):
    model, x, index = smooth_mlp(), normal(12, 20), torch.arange(12) * 1000 + 3
    settings = {
        "method": "finite-difference", "xi": 0.5, "eps": 1.5, "num_iters": num_iters, "seed": 7,
        "divergence": divergence, "smoothing": smoothing,
    }  # fmt: skip
    expected = textbook_ldr(model, x, index, **settings)
    got = ldr_scores(model, x, sample_index=index, backend=backend, **settings)
    assert got.dtype == torch.float64
    # The textbook loses digits: with logits that move by some 0.1, J ~ 0.01 keeps 1e-14 of 1 and
    # its gradient likewise, 1e-12 relative; an iteration may turn that by a factor of ten.
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=0)


def test_two_classes_and_a_linear_model_have_a_closed_form(backend):
    # Only z = w.x + b counts, so r = +-eps w/|w| with the sign of u.w, after any number of steps:
    # J = (s(z') - s(z)) (z' - z) with z' = z +- eps |w| and s the logistic function.
    x, w, b = normal(9, 6), normal(1, 6, seed=2)[0], 0.3
    index = torch.arange(9)

    def model(x):
        z = x @ w.to(x) + b
        return torch.stack([torch.zeros_like(z), z], dim=1)

    u = reference.random_perturb(torch.zeros_like(x), 1.0, seed=5, sample_index=index)
    step = torch.sign(u @ w) * 0.7 * w.norm()
    z = x @ w + b
    expected = (torch.sigmoid(z + step) - torch.sigmoid(z)) * step
    for num_iters in (1, 3):
        got = ldr_scores(
            model,
            x,
            method="finite-difference",
            xi=0.01,
            eps=0.7,
            num_iters=num_iters,
            seed=5,
            backend=backend,
        )
        # x + xi u is rounded to 1e-16 and taken back at a step of 0.01: 1e-14 of the step.
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


@pytest.mark.rounding
def test_the_two_backends_agree_in_float32():
    model, x = smooth_mlp(torch.float32), normal(40, 20, dtype=torch.float32)
    settings = {"method": "finite-difference", "xi": 0.5, "eps": 1.0, "num_iters": 2}
    fused, plain = (ldr_scores(model, x, **settings, backend=b) for b in ("fused", "reference"))
    # The ops' own 7e-6 (see test_ops_accuracy.py) turn a step as the rounding of the logits does.
    allowed = scores_apart(model, x, plain, **settings) + 2 * 2 * 7e-6
    assert ((fused / plain - 1).abs() <= allowed).all()


def test_forwards_and_backwards_are_counted(backend):
    calls = {"forward": 0, "backward": 0}
    linear = nn.Linear(4, 3)

    def model(x):
        calls["forward"] += 1
        if x.requires_grad:
            x.register_hook(lambda _: calls.update(backward=calls["backward"] + 1))
        return linear(x)

    x = normal(5, 4, dtype=torch.float32)
    ldr_scores(model, x, method="finite-difference", xi=0.1, eps=1.0, num_iters=5, backend=backend)
    assert calls == {"forward": 7, "backward": 5}


def test_an_empty_batch_does_not_call_the_model(backend):
    got = ldr_scores(
        pytest.fail, torch.zeros(0, 3), method="finite-difference", xi=1, eps=1, backend=backend
    )
    assert got.shape == (0,)
    assert got.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(backend, dtype):
    model, x = smooth_mlp(dtype), normal(8, 20, dtype=dtype)
    got = ldr_scores(model, x, method="finite-difference", xi=1.0, eps=2.0, backend=backend)
    assert got.dtype == torch.float32
    assert (got > 0).all()


def test_a_model_may_work_in_place_and_take_scalars_as_samples(backend):
    def model(x):
        x.mul_(2.0)
        return torch.stack([x, -x, x.square()], dim=1)

    x = normal(1, 5)[0]
    kept = x.clone()
    assert (
        ldr_scores(model, x, method="finite-difference", xi=0.1, eps=0.5, backend=backend) > 0
    ).all()
    assert torch.equal(x, kept)


def test_a_class_ruled_out_adds_nothing(backend):
    model, x = smooth_mlp(), normal(6, 20)

    def masked(x):
        return torch.cat([model(x), x.new_full((len(x), 1), -torch.inf)], dim=1)

    settings = {"method": "finite-difference", "xi": 0.5, "eps": 1.0, "backend": backend}
    # The same sums with one more zero in them, perhaps in another order: a few ulp.
    torch.testing.assert_close(
        ldr_scores(masked, x, **settings), ldr_scores(model, x, **settings), rtol=1e-12, atol=0
    )
    scores = LDRScorer(masked, **settings).score(x, progress=False)
    assert np.isfinite(scores.ldr).all()
    assert scores.posterior_mean[-1] == 0


# --- the same numbers however they are asked for ----------------------------------------------


def in_batches(model, x, size, **settings):
    index = torch.arange(len(x))
    parts = [
        ldr_scores(model, x[i : i + size], sample_index=index[i : i + size], **settings)
        for i in range(0, len(x), size)
    ]
    return torch.cat(parts).double()


@pytest.mark.rounding
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_size_moves_scores_by_rounding_alone(backend, dtype):
    model, x = smooth_mlp(dtype), normal(80, 20, dtype=dtype)
    settings = {"method": "finite-difference", "xi": 0.1, "eps": 1.0, "num_iters": 5}
    whole = in_batches(model, x, 80, **settings, backend=backend)
    bound = scores_apart(model, x, whole, **settings)
    for size in (1, 7):
        error = (in_batches(model, x, size, **settings, backend=backend) / whole - 1).abs()
        assert (error <= bound).all()
        # Near the limit J is stationary in the direction: there only the last forward counts.
        assert error.median() <= (2 * logits_apart(model, x) / whole.double().sqrt()).median()


@pytest.mark.rounding
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_and_kind_of_the_pool_do_not_matter(backend, dtype):
    model, x = smooth_mlp(dtype), normal(60, 20, dtype=dtype)
    labels, perm = torch.arange(60) % 5, torch.randperm(60, generator=torch.Generator())
    scorer = LDRScorer(
        model,
        method="finite-difference",
        xi=0.5,
        eps=1.0,
        num_iters=2,
        backend=backend,
        batch_size=16,
    )
    base = scorer.score(x, progress=False)
    assert np.array_equal(base.index, np.arange(60))
    shuffled = scorer.score(x[perm], sample_index=perm, progress=False)
    assert np.array_equal(shuffled.index, perm.numpy())
    back = np.argsort(perm.numpy())
    dataset = TensorDataset(x, labels)
    others = {
        "dataset": scorer.score(dataset, progress=False),
        "x only": scorer.score(list(x), progress=False),
        "loader": scorer.score(DataLoader(dataset, batch_size=7), progress=False),
        "shuffled": scorer.score(DataLoader(dataset, batch_size=16, shuffle=True), progress=False),
    }
    # The columns are float32, so even float64 scores may differ in the last place.
    allowed = scores_apart(
        model,
        x,
        torch.from_numpy(base.ldr),
        method="finite-difference",
        xi=0.5,
        eps=1.0,
        num_iters=2,
    )
    allowed = allowed.numpy() + 1.2e-7
    assert (np.abs(shuffled.ldr[back] / base.ldr - 1) <= allowed).all()
    for scores in others.values():
        assert np.array_equal(scores.index, base.index)
        assert np.array_equal(scores.pseudo_label, base.pseudo_label)
        assert (np.abs(scores.ldr / base.ldr - 1) <= allowed).all()
        # d entropy <= 2 |d logits| sqrt(entropy-like terms of at most 1); d p <= |d logits| / 2.
        apart = float(logits_apart(model, x).max()) + 1.2e-7
        np.testing.assert_allclose(scores.entropy, base.entropy, rtol=1.2e-7, atol=2 * apart)
        np.testing.assert_allclose(scores.posterior_mean, base.posterior_mean, atol=apart, rtol=0)


@pytest.mark.rounding
def test_the_papers_network_in_two_batch_sizes(backend):
    torch.manual_seed(0)
    model = PaperCNN(1, (12, 12), 4, channels=(4, 8), hidden=32).double()
    x = normal(14, 1, 12, 12)
    whole = in_batches(model, x, 14, method="finite-difference", xi=0.1, eps=1.0, backend=backend)
    # float64 rounding (1e-16) over J ~ 1e-6 and a poor start, squared roots as above: 1e-11.
    torch.testing.assert_close(
        in_batches(model, x, 1, method="finite-difference", xi=0.1, eps=1.0, backend=backend),
        whole,
        rtol=1e-9,
        atol=0,
    )


def test_what_a_pool_score_holds(backend):
    model, x = smooth_mlp(), normal(30, 20)
    scores = LDRScorer(
        model, method="finite-difference", xi=0.5, eps=1.0, backend=backend, batch_size=8
    ).score(x, sample_index=torch.arange(30) + 100, progress=False)
    assert isinstance(scores, PoolScores)
    with torch.no_grad():
        posterior = torch.softmax(model(x), 1)
    top = posterior.topk(2).values
    assert np.array_equal(scores.index, np.arange(30) + 100)
    assert np.array_equal(scores.pseudo_label, posterior.argmax(1).numpy())
    # float64 inside, rounded to float32 once; the mean stays float64.
    entropy = -(posterior * posterior.log()).sum(1)
    np.testing.assert_allclose(scores.entropy, entropy.float(), rtol=1.2e-7)
    np.testing.assert_allclose(scores.margin, (top[:, 0] - top[:, 1]).float(), rtol=1.2e-7)
    np.testing.assert_allclose(scores.posterior_mean, posterior.mean(0), rtol=1e-13)
    index = torch.arange(30) + 100
    ldr = ldr_scores(
        model, x, method="finite-difference", xi=0.5, eps=1.0, sample_index=index, backend=backend
    )
    np.testing.assert_allclose(scores.ldr, ldr.float(), rtol=1.2e-7)
    clean = posterior_scores(model, x, backend=backend, batch_size=8, progress=False)
    assert np.isnan(clean.ldr).all()
    assert np.array_equal(clean.index, np.arange(30))
    for name in ("pseudo_label", "entropy", "margin", "posterior_mean"):
        assert np.array_equal(getattr(clean, name), getattr(scores, name))
