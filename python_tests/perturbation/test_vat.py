"""The VAT loss: the paper's formulas, and a model left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from perturbed import perturbed
from small_network import normal
from textbook import textbook_divergence
from torch import nn
from torch.func import functional_call

import vaal_ext
from vaal_ext import ldr_scores, ops, reference
from vaal_ext.vat import _entropy, vat_loss

LENGTHS = {"method": "finite-difference", "xi": 0.5, "eps": 1.5}


def network(norm=None, dtype=torch.float64, dropout=0.0):
    """Smooth, so that rounding moves its gradient by rounding (at a kink of a ReLU it jumps)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # No bias below a norm: its gradient would be mere rounding.
        first = nn.Linear(6, 16, bias=norm is None)
        layers = [first, nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 4)]
        if norm is not None:
            layers.insert(1, norm(16))
        model = nn.Sequential(*layers)
        for parameter in model.parameters():
            parameter.data.mul_(2)
    return model.to(dtype)


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()))


# --- the right numbers ------------------------------------------------------------------------


def textbook_vat(
    model,
    x,
    index,
    *,
    method="finite-difference",
    xi,
    eps,
    num_iters,
    seed,
    divergence,
    smoothing,
    entropy_weight,
):
    """Eq. 1 to 3 as they stand, by autograd, with r held fixed.

    Only batch norm lets a sample's r depend on the others' divergences: then all count alike.
    """
    u = reference.random_perturb(torch.zeros_like(x), 1.0, seed=seed, sample_index=index)
    fixed = model(x).detach()
    for _ in range(num_iters):
        u.requires_grad_()
        logits = model(x + xi * u)
        value = textbook_divergence(fixed, logits, smoothing, divergence).sum()
        (slope,) = torch.autograd.grad(value, logits, retain_graph=True)
        if any(isinstance(layer, nn.BatchNorm1d) for layer in model):
            slope = slope / slope.abs().amax(dim=1, keepdim=True)
        (gradient,) = torch.autograd.grad(logits, u, slope)
        u = gradient / gradient.norm(dim=1, keepdim=True)
    clean = model(x)
    p = torch.softmax(clean, 1)
    roughness = textbook_divergence(clean, model(x + eps * u), smoothing, divergence).mean()
    return roughness - entropy_weight * (p * p.log()).sum(1).mean()


@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d])
@pytest.mark.parametrize("num_iters", [1, 3])
@pytest.mark.parametrize(
    ("divergence", "smoothing", "entropy_weight"),
    [("symmetric", 0.0, 0.0), ("symmetric", 0.1, 0.5), ("forward", 0.0, 1.0)],
)
def test_it_is_the_textbooks(backend, norm, num_iters, divergence, smoothing, entropy_weight):
    model, x, index = network(norm).train(), normal(12, 6), torch.arange(12) * 1000 + 3
    settings = LENGTHS | {
        "num_iters": num_iters, "seed": 7, "divergence": divergence, "smoothing": smoothing,
        "entropy_weight": entropy_weight,
    }  # fmt: skip
    twin = copy.deepcopy(model)
    expected = textbook_vat(twin, x, index, **settings)
    got = vat_loss(model, x, sample_index=index, backend=backend, **settings)
    assert got.dtype == torch.float64
    assert got.shape == ()
    # The textbook's own rounding: J ~ 0.1 keeps 1e-15 of 1, so its gradient turns u by 1e-14, and
    # an iteration may turn that by a factor of ten. Small elements are held against the largest.
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)
    for one, other in zip(gradients(got, model), gradients(expected, twin), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * other.abs().max().item())


def test_the_gradient_is_that_of_the_loss_with_r_held_fixed(backend):
    model, x, index = network(), normal(5, 6), torch.arange(5)
    moved = perturbed(model, x, index, **LENGTHS, num_iters=2, seed=4, backend=backend)
    names = [name for name, _ in model.named_parameters()]
    weights = tuple(p.detach().clone().requires_grad_() for p in model.parameters())

    def frozen(*weights):
        a, b = (
            functional_call(model, dict(zip(names, weights, strict=True)), (z,)) for z in (x, moved)
        )
        return ops.symmetric_kl(a, b).mean()

    assert torch.autograd.gradcheck(frozen, weights)
    got = gradients(vat_loss(model, x, **LENGTHS, num_iters=2, seed=4, backend=backend), model)
    for one, other in zip(got, torch.autograd.grad(frozen(*weights), weights), strict=True):
        # The same arithmetic but for the back end's: two float64 implementations of one formula.
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11 * other.abs().max().item())


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_in_eval_mode_it_is_the_mean_of_ldr(dtype, backend):
    model, x, index = network(dtype=dtype).eval(), normal(9, 6, dtype=dtype), torch.arange(9) + 40
    settings = LENGTHS | {"num_iters": 2, "seed": 3, "sample_index": index, "backend": backend}
    loss = vat_loss(model, x, **settings)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(loss, ldr_scores(model, x, **settings).mean())
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad.dtype == dtype
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.any()


def test_autocast_keeps_every_gradient():
    model = network(nn.BatchNorm1d, dtype=torch.float32).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = vat_loss(model, normal(9, 6, dtype=torch.float32), **LENGTHS)
    loss.backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


# --- the entropy term -------------------------------------------------------------------------


def test_the_entropy_of_saturated_rows_keeps_its_digits():
    logits = normal(40, 7) * torch.logspace(-2, 2, 40, dtype=torch.float64).unsqueeze(1)
    single = logits.float().requires_grad_()
    exact = single.detach().double()
    entropy = _entropy(single)
    expected = reference.posterior_summary(exact)[1]
    # Logits that differ by 87 at most (beyond, e^alpha underflows): the difference is rounded to
    # 6e-8 of itself, 5e-6 in all, and so is its exponential.
    shown = expected > 1e-30
    assert shown.sum() > 20
    assert expected[shown].min() < 1e-8
    torch.testing.assert_close(entropy[shown].double(), expected[shown], rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(entropy[shown].sum(), single)
    log_p = torch.log_softmax(exact, 1)
    largest = exact.argmax(1, keepdim=True)
    others = log_p.exp().scatter(1, largest, 0.0)
    # dH/dz = -p (log p + H) for all but the largest class, where log p + H is lost; the sum is 0.
    slope = -others * (log_p + expected.unsqueeze(1))
    slope = slope.scatter(1, largest, -slope.sum(1, keepdim=True))
    # Rows that are almost uniform: p (log p + H) is what a few roundings of p leave.
    bound = 1e-5 * slope.abs().amax(1) + 8 * 6e-8 * others.sum(1)
    assert ((gradient.double() - slope).abs().amax(1) < bound)[shown].all()


def test_the_entropy_gradient_and_a_class_ruled_out():
    logits = normal(6, 5).requires_grad_()
    assert torch.autograd.gradcheck(_entropy, (logits,))
    barred = torch.cat([logits.detach(), torch.full((6, 1), -torch.inf)], 1).requires_grad_()
    entropy = _entropy(barred)
    assert torch.equal(entropy, _entropy(logits))
    (gradient,) = torch.autograd.grad(entropy.sum(), barred)
    assert torch.isfinite(gradient).all()
    assert not gradient[:, -1].any()


# --- what stays as it was ---------------------------------------------------------------------


def test_batch_norm_sees_the_callers_own_forward_only(backend):
    model, x, y = network(nn.BatchNorm1d).train(), normal(8, 6), torch.arange(8) % 4
    alone = copy.deepcopy(model)
    alone(x[:4])
    logits = model(x[:4])
    loss = vat_loss(model, x, **LENGTHS, backend=backend, entropy_weight=0.1)
    assert model[1].num_batches_tracked == 1
    for (name, buffer), other in zip(model.named_buffers(), alone.buffers(), strict=True):
        assert torch.equal(buffer, other), name
    # The graph recorded through the buffers before is still good.
    (nn.functional.cross_entropy(logits, y[:4]) + loss).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda model: nn.utils.parametrizations.spectral_norm(model[0]),
        lambda model: model.append(nn.BatchNorm1d(4, momentum=None, dtype=torch.float64)),
    ],
    ids=["spectral norm", "cumulative batch norm"],
)
def test_no_buffer_changes(change):
    model = network().train()
    change(model)
    before = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    vat_loss(model, normal(8, 6), **LENGTHS, num_iters=2).backward()
    after = dict(model.named_buffers())
    assert before
    assert after.keys() == before.keys()
    for name, (buffer, content) in before.items():
        assert after[name] is buffer
        assert torch.equal(buffer, content)


def test_no_gradient_of_a_parameter_is_made_before_backward():
    model = network(nn.BatchNorm1d).train()
    made = []
    for name, parameter in model.named_parameters():
        parameter.grad = torch.full_like(parameter, 5)
        parameter.register_hook(lambda gradient, name=name: made.append(name))
    loss = vat_loss(model, normal(8, 6), **LENGTHS, num_iters=2)
    assert made == []
    assert all((parameter.grad == 5).all() for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    loss.backward()
    assert set(made) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("num_iters", [1, 3])
def test_the_search_records_nothing_for_the_parameters(num_iters):
    model, passes = network(), []

    def watch(module, inputs):
        passes.append((module.weight.requires_grad, inputs[0].requires_grad))

    model[0].register_forward_pre_hook(watch)
    vat_loss(model, normal(8, 6), **LENGTHS, num_iters=num_iters)
    # Clean, the search, perturbed.
    assert passes == [(True, False), *[(False, True)] * num_iters, (True, False)]


def test_x_is_not_changed_and_gets_no_gradient():
    x = normal(8, 6).requires_grad_()
    before = x.detach().clone()
    model = nn.Sequential(nn.ELU(inplace=True), network())
    vat_loss(model, x, **LENGTHS).backward()
    assert torch.equal(x.detach(), before)
    assert x.grad is None


# --- what it is drawn from --------------------------------------------------------------------


def test_the_seed_and_the_index_decide():
    model, x, index = network(), normal(8, 6), torch.arange(8)
    first = vat_loss(model, x, **LENGTHS, seed=1)
    assert torch.equal(first, vat_loss(model, x, **LENGTHS, seed=1))
    assert not torch.equal(first, vat_loss(model, x, **LENGTHS, seed=2))
    assert not torch.equal(first, vat_loss(model, x, **LENGTHS, seed=1, sample_index=index + 8))
    turned = vat_loss(model, x.flip(0), **LENGTHS, seed=1, sample_index=index.flip(0))
    torch.testing.assert_close(turned, first, rtol=1e-13, atol=0)  # eight numbers added


@pytest.mark.parametrize("num_iters", [1, 3])
def test_every_pass_draws_a_dropout_mask_of_its_own(num_iters):
    model, x = network(dropout=0.5).train(), normal(8, 6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = vat_loss(model, x, **LENGTHS, num_iters=num_iters)
        drawn = torch.get_rng_state()
        torch.manual_seed(0)
        assert torch.equal(vat_loss(model, x, **LENGTHS, num_iters=num_iters), loss)
        torch.manual_seed(0)
        for _ in range(num_iters + 2):
            model(x)
        assert torch.equal(torch.get_rng_state(), drawn)


def test_any_callable_and_any_output_will_do():
    model, x = network(), normal(8, 6)
    expected = vat_loss(model, x, **LENGTHS)
    assert torch.equal(vat_loss(lambda z: model(z), x, **LENGTHS), expected)
    wrapped = vat_loss(lambda z: (0, model(z)), x, **LENGTHS, logits_fn=lambda out: out[1])
    assert torch.equal(wrapped, expected)
    with torch.no_grad():
        value = vaal_ext.vat_loss(model, x, **LENGTHS)
    assert torch.equal(value, expected)
    assert not value.requires_grad


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"xi": 0.0}, ValueError, "xi must be finite and above 0"),
        ({"eps": float("nan")}, ValueError, "eps must be finite and above 0"),
        ({"num_iters": 0}, ValueError, "num_iters must be at least 1"),
        ({"divergence": "backward"}, ValueError, "divergence must be"),
        ({"entropy_weight": -0.1}, ValueError, "entropy_weight must be finite and at least 0"),
        ({"entropy_weight": float("inf")}, ValueError, "entropy_weight must be finite"),
        ({"entropy_weight": "1"}, TypeError, "entropy_weight must be a number, got '1'"),
        ({"sample_index": [1, 2]}, TypeError, "sample_index must be an int64 tensor, got list"),
        ({"sample_index": torch.zeros(3)}, TypeError, "int64 tensor, got torch.float32"),
        ({"sample_index": torch.arange(2)}, ValueError, r"shape \[3\] on cpu, got \[2\] on cpu"),
        ({"x": [1.0]}, TypeError, "x must be a tensor, got list"),
        ({"x": torch.zeros(3, 6, dtype=torch.int64)}, TypeError, "x must be floating point"),
        ({"x": torch.zeros(0, 6)}, ValueError, "x must hold at least one sample"),
        ({"model": "network"}, TypeError, "model must be callable, got str"),
        ({"model": lambda x: x.sum()}, ValueError, r"the logits must have shape \[B, C\]"),
        ({"model": lambda x: x.detach()}, ValueError, "the logits do not depend on the input"),
        ({"model": nn.LazyLinear(3)}, ValueError, "uninitialised"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    arguments = {"model": nn.Linear(6, 4), "x": torch.zeros(3, 6), **LENGTHS} | change
    with pytest.raises(error, match=message):
        vat_loss(**arguments)


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        vat_loss(nn.Linear(6, 4), torch.zeros(3, 6), **LENGTHS)
