"""method="fisher" and sign=: the exact Hessian's direction, both signs, and what they refuse."""

import copy
import math

import numpy as np
import pytest
import torch
from perturbed import perturbed
from small_network import normal
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vaal_ext import LDRScorer, ldr_scores, ops, vat_loss
from vaal_ext.perturbation.fisher import Linearised

FISHER = {"method": "fisher", "eps": 0.5}
STEPS = {"method": "finite-difference", "xi": 0.1, "eps": 0.5}


def smooth_mlp(classes=5, features=12, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(classes)
        layers = [nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, classes)]
    model = nn.Sequential(*layers)
    model[-1].weight.data.mul_(4)
    return model.to(dtype).eval()


def found(model, x, **settings):
    """The unit perturbations, [B, D]."""
    settings = FISHER | settings
    return (perturbed(model, x, torch.arange(len(x)) + 7, **settings) - x) / settings["eps"]


def hessian(model, sample):
    """JᵀFJ [D, D] of one sample [D], from the dense Jacobian."""
    jacobian = torch.func.jacrev(lambda z: model(z[None])[0])(sample)
    p = torch.softmax(model(sample[None])[0], 0)
    return (jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian).detach()


# --- the right direction ----------------------------------------------------------------------


@pytest.mark.parametrize("num_iters", [1, 3])
def test_it_is_the_power_iteration_on_the_dense_hessian(backend, num_iters):
    model, x = smooth_mlp(), normal(9, 12)
    got = found(model, x, num_iters=num_iters, backend=backend)
    start = ops.random_perturb(
        torch.zeros_like(x), 1.0, seed=0, sample_index=torch.arange(len(x)) + 7
    )
    for sample, u, mine in zip(x, start, got, strict=True):
        for _ in range(num_iters):
            u = hessian(model, sample) @ u
            u = u / u.norm()
        # 1e-16 of the products, over the ratio of the eigenvalues (below 1e4 here), to the start's
        # own rounding; x + 0.5 u keeps u to 1e-15.
        torch.testing.assert_close(mine, u, rtol=0, atol=1e-11)


def test_finite_differences_tend_to_it(backend):
    """Their error is of first order in xi: u is off by about xi, and so is LDR, relatively."""
    model, x = smooth_mlp(), normal(20, 12)
    exact = ldr_scores(model, x, **FISHER, num_iters=3, backend=backend)
    errors = [
        (ldr_scores(model, x, **STEPS | {"xi": xi}, num_iters=3, backend=backend) / exact - 1)
        .abs()
        .max()
        for xi in (1e-2, 1e-4, 1e-6)
    ]
    assert errors[2] <= 1e-4
    assert 20 * errors[2] <= errors[1] <= errors[0] / 20


@pytest.mark.parametrize("method", ["fisher", "finite-difference"])
def test_samples_of_one_number_each(method):
    """Both posteriors are those of z = 0 and z = 2, moved by 0.1 either way."""

    def model(z):
        return torch.stack([z, -z], dim=1)

    x = torch.tensor([0.0, 2.0])
    settings = {"eps": 0.1, "method": method, "sign": "max"}
    found = ldr_scores(model, x, **settings, xi=None if method == "fisher" else 0.01)
    moved = torch.stack([ops.symmetric_kl(model(x), model(x + r)) for r in (0.1, -0.1)])
    torch.testing.assert_close(found, moved.amax(0), rtol=1e-4, atol=0)


def test_two_classes_need_no_iteration(backend):
    """A third class at -inf changes no posterior and takes the way of C > 2."""
    model, x = smooth_mlp(classes=2), normal(15, 12)

    def ruled_out(z):
        logits = model(z)
        return torch.cat([logits, torch.full_like(logits[:, :1], -math.inf)], dim=1)

    expected = found(ruled_out, x, num_iters=1, backend=backend)
    calls = []
    counting = lambda z: calls.append(z) or model(z)  # noqa: E731
    for num_iters in (1, 5):
        got = found(counting, x, num_iters=num_iters, backend=backend)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)
    assert len(calls) == 2
    for sample, mine in zip(x, got, strict=True):
        gradient = torch.func.grad(lambda z: model(z[None])[0] @ z.new_tensor([-1.0, 1.0]))(sample)
        torch.testing.assert_close(
            (mine @ gradient / gradient.norm()).abs(), torch.tensor(1.0).double()
        )


@pytest.mark.parametrize("gap", [60, 800])
def test_a_saturated_sample_keeps_its_direction(gap, backend):
    """800 is beyond float64's exponents: the posterior of every other class is 0."""
    model, x = smooth_mlp(classes=4), normal(6, 12)
    logits = lambda z: model(z) + torch.tensor([gap, 0, 0, 0])  # noqa: E731
    for u in found(logits, x, num_iters=4, backend=backend):
        assert u.norm().item() == pytest.approx(1, rel=1e-12)


def test_the_products_are_the_jacobians():
    model, x = smooth_mlp(), normal(4, 12)
    u, w = normal(4, 12, seed=2), normal(4, 5, seed=3)
    network = Linearised(model, x)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: model(z[None])[0]))(x)
    for _ in range(2):  # the recorded passes serve again
        torch.testing.assert_close(network.push(u), torch.einsum("bcd,bd->bc", jacobian, u))
        torch.testing.assert_close(network.pull(w), torch.einsum("bcd,bc->bd", jacobian, w))
    torch.testing.assert_close(network.logits, model(x).detach())


@pytest.mark.rounding
def test_batches_and_half_precision():
    """bfloat16 keeps 8 bits of every activation: the ranking of spread-out scores survives."""

    def scores(dtype, **options):
        scorer = LDRScorer(smooth_mlp(dtype=dtype), **FISHER, num_iters=3, **options)
        return scorer.score(normal(64, 12, dtype=dtype), progress=False).ldr

    whole, parts = (scores(torch.float64, batch_size=size) for size in (64, 7))
    np.testing.assert_allclose(parts, whole, rtol=1.2e-7)  # float32's last place
    half = scores(torch.float32, amp="bf16")
    assert np.corrcoef(np.argsort(np.argsort(half)), np.argsort(np.argsort(whole)))[0, 1] > 0.9


# --- samples without a direction ----------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_a_flat_network_scores_0(classes, backend):
    model = nn.Linear(6, classes)
    model.weight.data.zero_()
    with torch.no_grad():
        assert (ldr_scores(model, normal(4, 6).float(), **FISHER, backend=backend) == 0).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_what_is_not_finite_scores_nan(classes, backend):
    model, x = smooth_mlp(classes=classes), normal(5, 12)
    logits = lambda z: model(z * torch.where(z[:, :1] > 0, 1.0, math.nan))  # noqa: E731
    scores = ldr_scores(logits, x, **FISHER, backend=backend)
    assert scores.isnan().tolist() == (x[:, 0] <= 0).tolist()


# --- both signs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [FISHER, STEPS], ids=["fisher", "finite-difference"])
def test_signs(method, backend):
    model, x, index = smooth_mlp(), normal(10, 12), torch.arange(10) + 7
    settings = {"num_iters": 2, "backend": backend, **method}
    moved = perturbed(model, x, index, **settings)
    with torch.no_grad():
        clean = model(x)
        plus, minus = (
            ops.symmetric_kl(clean, model(moved)),
            ops.symmetric_kl(clean, model(2 * x - moved)),
        )
    expected = {"paper": plus, "max": torch.maximum(plus, minus)}
    assert (plus / minus - 1).abs().max() > 0.1
    for sign, value in expected.items():
        got = ldr_scores(model, x, sample_index=index, sign=sign, **settings)
        # The same numbers but for the rounding of x - r, 1e-16 of x in a step of 0.5.
        torch.testing.assert_close(got, value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sign", ["paper", "max"])
def test_vat_loss_is_the_mean_of_ldr_and_differentiable(sign, backend):
    model, x = smooth_mlp(), normal(6, 12)
    settings = {**FISHER, "sign": sign, "num_iters": 2, "backend": backend}
    loss = vat_loss(model, x, **settings)
    torch.testing.assert_close(loss.detach(), ldr_scores(model, x, **settings).mean())
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    moved = perturbed(model, x, **settings)
    clean, plus, minus = model(x), model(moved), model(2 * x - moved)
    plus, minus = ops.symmetric_kl(clean, plus), ops.symmetric_kl(clean, minus)
    by_hand = {"paper": plus, "max": torch.maximum(plus, minus)}[sign]
    expected = torch.autograd.grad(by_hand.mean(), list(model.parameters()))
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


# --- no trace, and refusals -----------------------------------------------------------------------


class OnceOnly(torch.autograd.Function):
    """tanh, with a derivative that has none itself."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.tanh())
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * (1 - ctx.saved_tensors[0] ** 2)


class WithOnceOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(OnceOnly.apply(self.first(x)))


def test_a_layer_that_cannot_be_differentiated_twice():
    model = WithOnceOnly().train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"method='fisher' differentiates .* once more"):
        ldr_scores(model, normal(3, 12).float(), **FISHER)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    ldr_scores(model, normal(3, 12).float(), **STEPS)  # which does not ask for that


def test_attention_runs_by_the_kernel_that_can_be_differentiated():
    layer = nn.Linear(4, 4)

    def model(x):
        heads = layer(x).unsqueeze(1)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads).flatten(1)

    x = normal(3, 8, 4).float()
    got = ldr_scores(model, x, **FISHER)
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.equal(got, ldr_scores(model, x, **FISHER))
    assert (got > 0).all()
    vat_loss(model, x, **FISHER).backward()
    assert layer.weight.grad.any()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"xi": 0.1, **FISHER}, ValueError, "xi must be None with method='fisher'.*got 0.1"),
        (
            {**STEPS, "xi": None},
            TypeError,
            "xi must be a number with method='finite-difference', got None",
        ),
        ({"smoothing": 0.1, **FISHER}, ValueError, "smoothing must be 0 with method='fisher'"),
        ({"method": "newton", "eps": 0.5}, ValueError, "method must be .*, got 'newton'"),
        ({"sign": "both", **FISHER}, ValueError, "sign must be 'paper' or 'max', got"),
    ],
)
def test_bad_settings(settings, error, message):
    for call in (ldr_scores, vat_loss):
        with pytest.raises(error, match=message):
            call(smooth_mlp(), normal(3, 12), **settings)
    with pytest.raises(error, match=message):
        LDRScorer(smooth_mlp(), **settings)


def test_a_compiled_network_is_refused():
    with pytest.raises(ValueError, match="compile_model must be False with method='fisher'"):
        LDRScorer(smooth_mlp(), **FISHER, compile_model=True)


def test_logits_that_do_not_depend_on_x():
    with pytest.raises(ValueError, match="do not depend on the input through autograd"):
        ldr_scores(lambda x: x.detach(), normal(3, 12), **FISHER)
