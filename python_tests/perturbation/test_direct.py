"""The direct search: r along Jᵀw from one forward, and what its users may count on."""

import copy
import warnings

import numpy as np
import pytest
import torch
from other_sums import moves
from perturbed import perturbed
from rounding import SIGMAS, direct_scores_apart, scores_apart
from small_network import normal
from test_roughness import smooth_mlp
from torch import nn

from vaal_ext import LDRScorer, ldr_scores, ops, reference, vat_loss
from vaal_ext.experiment.datasets.load import load_dataset
from vaal_ext.experiment.training import model_for, train


def by_the_book(model, sample, eps, num_iters):
    """x + r for one sample [D], from the dense matrices and by autograd through the textbook J."""
    jacobian = torch.autograd.functional.jacobian(lambda z: model(z.unsqueeze(0))[0], sample)
    logits = model(sample.unsqueeze(0))[0].detach()
    p = torch.softmax(logits, 0)
    _, vectors = torch.linalg.eigh(torch.diag(p) - torch.outer(p, p))
    w = vectors[:, -1] * -torch.sign(vectors[logits.argmax(), -1])
    r = eps * torch.nn.functional.normalize(w @ jacobian, dim=0)
    for _ in range(num_iters):
        r.requires_grad_()
        q = torch.softmax(model((sample + r).unsqueeze(0))[0], 0)
        (gradient,) = torch.autograd.grad(((p - q) * (p.log() - q.log())).sum(), r)
        r = eps * torch.nn.functional.normalize(gradient, dim=0)
    return sample + r


@pytest.mark.parametrize("num_iters", [0, 2])
def test_r_is_that_of_the_dense_matrices(backend, num_iters):
    model, x = smooth_mlp(features=12), normal(20, 12)
    got = perturbed(model, x, eps=0.5, num_iters=num_iters, backend=backend)
    expected = torch.stack([by_the_book(model, sample, 0.5, num_iters) for sample in x])
    # eigh's vectors are off by 1e-16 over the gap of two eigenvalues (of p up to 1, and above 1e-5
    # of it here); each step's textbook gradient by 1e-16 over J's share of 1, some 1e-4.
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def test_ldr_is_the_divergence_there(backend):
    model, x = smooth_mlp(features=12), normal(20, 12)
    for settings in ({}, {"num_iters": 1}, {"divergence": "forward"}):
        at = perturbed(model, x, eps=0.5, backend=backend, **settings)
        divergence = settings.get("divergence", "symmetric")
        expected = reference.symmetric_kl(model(x), model(at), divergence=divergence).detach()
        got = ldr_scores(model, x, eps=0.5, backend=backend, **settings)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_more_steps_near_the_largest_divergence():
    """At a long eps, where the Hessian at r = 0 says little: no single step may lose much, and the
    sum over the samples grows."""
    model, x = smooth_mlp(), normal(200, 20)
    found = [ldr_scores(model, x, eps=2.0, num_iters=n).sum() for n in (0, 1, 3)]
    assert found[0] < found[1] < found[2]


def test_many_steps_find_what_many_random_starts_find():
    """Steps at the length itself end where those at xi do: J's third order at eps is below 1 %."""
    model, x = smooth_mlp(), normal(200, 20)
    steps = {"method": "finite-difference", "xi": 1e-3, "eps": 0.01, "num_iters": 20, "sign": "max"}
    best = torch.stack([ldr_scores(model, x, **steps, seed=seed) for seed in range(4)]).amax(0)
    assert (ldr_scores(model, x, eps=0.01, num_iters=60) / best).min() > 0.99


@pytest.mark.slow
def test_a_trained_network_needs_no_step_more():
    """One gradient leaves no sample far behind; five steps from a random start leave some, whose
    sign is the wrong one."""
    data = load_dataset("digits", None, 0)
    model = model_for(data, seed=0)
    x, y = data.train_x[:100], data.train_y[:100]
    train(model, x, y, steps=100, learning_rate=1e-3, batch_size=32, seed=0)
    model, x = model.double(), data.train_x[100:250].double()
    steps = {"method": "finite-difference", "xi": 0.01, "eps": 0.1}
    starts = [{"num_iters": 20, "sign": "max", "seed": seed} for seed in range(2)]
    best = torch.stack([ldr_scores(model, x, **steps, **start) for start in starts]).amax(0)
    direct = (ldr_scores(model, x, eps=0.1) / best).quantile(0.05)
    assert direct > (ldr_scores(model, x, **steps) / best).quantile(0.05) + 0.1


def test_there_is_no_random_start():
    model, x = smooth_mlp(), normal(30, 20)
    alone = ldr_scores(model, x, eps=0.5)
    index = torch.arange(30) + 1000
    assert torch.equal(ldr_scores(model, x, eps=0.5, seed=9, sample_index=index), alone)


def test_what_a_batch_costs():
    """Two forwards and one backward, and one of each for every step more."""
    passes = []

    class Counted(nn.Linear):
        def forward(self, x):
            passes.append("forward")
            out = super().forward(x)
            if out.requires_grad:
                out.register_hook(lambda gradient: passes.append("backward"))
            return out

    model = nn.Sequential(Counted(20, 5), nn.Tanh())
    x = normal(8, 20).float()
    for num_iters in (0, 1, 3):
        passes.clear()
        ldr_scores(model, x, eps=0.5, num_iters=num_iters)
        assert passes == ["forward", "backward"] * (num_iters + 1) + ["forward"]
    passes.clear()
    vat_loss(model, x, eps=0.5)  # whose clean forward serves the search
    assert passes == ["forward", "backward", "forward"]


@pytest.mark.rounding
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.1, 1.0])
def test_batch_size_moves_scores_by_little(backend, dtype, eps):
    """No small step is taken and given back, so that nothing magnifies the rounding of a batch."""
    model, x = smooth_mlp(dtype), normal(256, 20, dtype=dtype)
    whole = ldr_scores(model, x, eps=eps, backend=backend).double()
    bound = direct_scores_apart(model, x, eps=eps)
    for size in (1, 7):
        parts = [ldr_scores(model, part, eps=eps, backend=backend) for part in x.split(size)]
        error = (torch.cat(parts).double() / whole - 1).abs()
        assert (error <= bound).all()
        # Of normal errors 68 in a hundred are below their standard deviation.
        assert (error <= bound / SIGMAS).double().mean() > 0.5


@pytest.mark.parametrize("eps", [0.1, 1.0])
def test_other_processors_move_scores_by_less_than_those_of_finite_differences(eps):
    """Of these the largest move, of samples whose sign turns round, is beyond the direct search's
    bound, which for them is above 1."""
    model, x = smooth_mlp(torch.float32), normal(256, 20, dtype=torch.float32)
    bound = direct_scores_apart(model, x, eps=eps)
    moved = moves(lambda: ldr_scores(model, x, eps=eps), range(4))
    assert (moved <= bound).all()
    steps = {"eps": eps, "method": "finite-difference", "xi": eps / 10, "num_iters": 5}
    assert moves(lambda: ldr_scores(model, x, **steps), range(4)).max() > bound.max()
    assert scores_apart(model, x, ldr_scores(model, x, **steps), **steps).max() > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_find_the_direction_of_saturated_samples(dtype):
    """p of the other classes is 1e-20 or less, which half types do not have."""
    model = smooth_mlp(classes=4)
    with torch.no_grad():
        model[-1].weight.mul_(0.1)
        model[-1].bias.copy_(torch.tensor([60.0, 0.0, 5.0, -3.0]))
    x = normal(50, 20)
    exact = perturbed(model, x, eps=0.5) - x
    half = perturbed(copy.deepcopy(model).to(dtype), x.to(dtype), eps=0.5) - x.to(dtype)
    cosine = torch.cosine_similarity(exact, half.double(), dim=1)
    # The network's own rounding, of bfloat16 (2^-9) at the coarsest, through three layers.
    assert cosine.min() > 0.99


def test_flat_places_and_what_is_not_finite(backend):
    model, x = smooth_mlp(), normal(6, 20)

    def patchy(z):
        dead, bad = z[:, :1] < -50, z[:, :1] > 50
        return (model(z) * ~dead).masked_fill(bad, torch.nan)

    x[1, 0], x[4, 0] = -100.0, 100.0
    got = ldr_scores(patchy, x, eps=0.5, backend=backend)
    assert got[1] == 0
    assert got.isnan().tolist() == [False, False, False, False, True, False]
    assert (got[[0, 2, 3, 5]] > 0).all()


def test_a_class_ruled_out_changes_nothing(backend):
    model, x = smooth_mlp(), normal(6, 20)

    def with_one_more(z):
        return torch.cat([model(z), torch.full((len(z), 1), -torch.inf, dtype=z.dtype)], dim=1)

    got = ldr_scores(with_one_more, x, eps=0.5, backend=backend)
    torch.testing.assert_close(
        got, ldr_scores(model, x, eps=0.5, backend=backend), rtol=1e-12, atol=0
    )


def test_logits_in_a_buffer_that_is_used_again():
    model, x = smooth_mlp(), normal(6, 20)
    buffer = torch.empty(6, 5, dtype=torch.float64)

    class Reusing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits):
            return buffer.copy_(logits).view_as(buffer)

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    got = ldr_scores(lambda z: Reusing.apply(model(z)), x, eps=0.5)
    assert torch.equal(got, ldr_scores(model, x, eps=0.5))


@pytest.mark.slow
def test_with_a_compiled_network_and_from_a_pool():
    model, x = smooth_mlp(torch.float32), normal(40, 20, dtype=torch.float32)
    plain = LDRScorer(model, eps=0.5, batch_size=40).score(x, progress=False)
    np.testing.assert_array_equal(plain.ldr, ldr_scores(model, x, eps=0.5).numpy())
    compiled = LDRScorer(model, eps=0.5, batch_size=40, compile_model=True)
    error = np.abs(compiled.score(x, progress=False).ldr / plain.ldr - 1)
    assert (error <= direct_scores_apart(model, x, eps=0.5).numpy()).all()


# --- the regulariser ----------------------------------------------------------------------------


@pytest.mark.parametrize("num_iters", [0, 2])
@pytest.mark.parametrize("sign", ["paper", "max"])
def test_vat_loss_is_the_mean_of_ldr_with_r_held_fixed(backend, num_iters, sign):
    model, x = smooth_mlp(), normal(12, 20)
    settings = {"eps": 0.5, "num_iters": num_iters, "sign": sign, "backend": backend}
    loss = vat_loss(model, x, **settings)
    expected = ldr_scores(model, x, **settings).mean()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)
    at = perturbed(model, x, **settings)
    plus, minus = (ops.symmetric_kl(model(x), model(z)) for z in (at, 2 * x - at))
    by_hand = plus if sign == "paper" else torch.maximum(plus, minus)
    mine = torch.autograd.grad(loss, list(model.parameters()))
    theirs = torch.autograd.grad(by_hand.mean(), list(model.parameters()))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_vat_loss_in_training_mode_leaves_buffers_and_input_alone():
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 5))
    model, x = model.double().train(), normal(12, 20)
    before = copy.deepcopy(model.state_dict())
    loss = vat_loss(model, x, eps=0.5)
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    loss.backward()
    assert x.grad is None
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_vat_loss_without_gradients():
    model, x = smooth_mlp(), normal(12, 20)
    with torch.no_grad():
        loss = vat_loss(model, x, eps=0.5)
    assert torch.equal(loss, vat_loss(model, x, eps=0.5).detach())


def test_vat_loss_under_torch_compile():
    model, x = smooth_mlp(), normal(12, 20)
    compiled = torch.compile(lambda z: vat_loss(model, z, eps=0.5), fullgraph=True)
    loss = vat_loss(model, x, eps=0.5)
    got = compiled(x)
    torch.testing.assert_close(got, loss, rtol=1e-9, atol=0)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for mine, theirs in zip(
        torch.autograd.grad(got, list(model.parameters())), expected, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


# --- where its first step is not enough ---------------------------------------------------------


def bent(x):
    """At x the first element matters, a little away from it the square of the second."""
    near = x[:, :1] * (1 + 2 * torch.sigmoid(3 * x[:, 3:4]))
    far = x[:, 1:2].square() * (20 * torch.sigmoid(5 * x[:, 2:3]))
    return torch.cat([near + far, torch.zeros_like(near)], dim=1)


def test_a_first_step_that_misses_is_told():
    x = 0.3 * normal(200, 6)
    x[:, 1] = 0.001
    broad = smooth_mlp(features=6)
    for model, eps in ((bent, 2.0), (broad, 2.0)):
        with pytest.warns(RuntimeWarning, match=r"two steps further .* num_iters=2") as caught:
            LDRScorer(model, eps=eps).score(x, progress=False)
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LDRScorer(bent, eps=0.1).score(x, progress=False)
        LDRScorer(broad, eps=0.1, num_iters=8).score(x, progress=False)
