"""Batched DeepFool against a plain one for a single sample, written from the paper."""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from vaal_ext import progress
from vaal_ext.models import MLP, PaperCNN
from vaal_ext.perturbation import deepfool as perturbation
from vaal_ext.perturbation.deepfool import DeepFool, deepfool
from vaal_ext.pool.scores import PoolScores
from vaal_ext.scorer import deepfool_scores

# Both backends of the step, the plain one here too, are right to rounding; what separates two runs
# is the rounding of the network's forward and backward in batches of different sizes, and float64
# keeps that far below this on any processor. A wrong class, gradient or number of iterations is off
# by 1e-2 and more.
RTOL = 1e-4


def small_cnn(classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    net = PaperCNN(1, (8, 8), classes, channels=(4, 8), hidden=32).double().eval()
    with torch.no_grad():  # an untrained network's logits hardly differ
        net.classifier[-1].weight *= 10
    return net


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def plain_deepfool(model, x, *, overshoot=0.02, max_iter=50):
    """Algorithm 2 of Moosavi-Dezfooli et al. (2016) for one sample [1, ...], overshoot inside.

    Returns the perturbation (overshoot included), the iterations and the class reached, or None.
    """
    own = model(x).argmax().item()
    total = torch.zeros_like(x)
    for iteration in range(max_iter + 1):
        point = (x + (1 + overshoot) * total).requires_grad_()
        f = model(point)[0]
        if f.argmax() != own:
            return (1 + overshoot) * total, iteration, f.argmax().item()
        gradients = [torch.autograd.grad(k, point, retain_graph=True)[0] for k in f]
        least = None
        for k in range(len(f)):
            if k == own:
                continue
            w, gap = gradients[k] - gradients[own], (f[k] - f[own]).item()
            distance = abs(gap) / w.norm().item()
            if least is None or distance < least[0]:
                least = distance, abs(gap) / w.norm().item() ** 2 * w
        total = total + least[1]
    return None


@pytest.mark.rounding
@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("overshoot", [0.02, 0.5])
def test_as_one_by_one(backend, overshoot):
    model, x = small_cnn(), images(40)
    found = deepfool(model, x, overshoot=overshoot, backend=backend)
    for i in range(len(x)):
        r, iterations, reached = plain_deepfool(model, x[i : i + 1], overshoot=overshoot)
        assert (found.perturbation[i] - r[0]).norm() <= RTOL * r.norm()
        assert abs(found.norm[i] - r.norm()) <= RTOL * r.norm()
        assert (found.iterations[i], found.reached[i]) == (iterations, reached)
    assert len(set(found.iterations.tolist())) > 1  # so samples did leave the batch early
    with torch.no_grad():
        torch.testing.assert_close(found.logits, model(x))
        assert model(x + found.perturbation).argmax(1).tolist() == found.reached.tolist()


def test_samples_of_one_number_each():
    found = deepfool(lambda x: torch.stack([x, 1 - x], dim=1), torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(found.perturbation, torch.tensor([0.5, -1.5]) * 1.02)
    torch.testing.assert_close(found.norm, torch.tensor([0.5, 1.5]) * 1.02)


@pytest.mark.parametrize("max_iter", [1, 50])
def test_a_network_that_is_not_finite_beyond_a_step(max_iter):
    def model(x):
        return torch.stack([x[:, 0], torch.where(x[:, 0] < 1, torch.nan, 0.1)], dim=1)

    found = deepfool(model, torch.tensor([[2.0], [5.0]]), max_iter=max_iter)
    assert found.norm.isnan().all()
    assert found.reached.tolist() == [-1, -1]


@pytest.mark.rounding
def test_any_batch_gives_the_same(monkeypatch):
    """Alone, together, in pieces of two, in channels_last, without grad mode."""
    model, x = small_cnn(), images(12)
    whole = deepfool(model, x)
    with torch.inference_mode():
        alone = [deepfool(model, x[i : i + 1]) for i in range(len(x))]
    monkeypatch.setattr("vaal_ext.perturbation.deepfool._GRADIENTS_AT_A_TIME", 8)
    pieces = deepfool(model, x.contiguous(memory_format=torch.channels_last))
    for other in (torch.cat([one.perturbation for one in alone]), pieces.perturbation):
        difference = (other - whole.perturbation).flatten(1).norm(dim=1)
        assert (difference <= RTOL * whole.norm).all()


class Pieces(DeepFool):
    """Keeps the sizes of the batches whose gradients are taken together."""

    sizes: ClassVar[list[int]] = []

    def _step(self, forward, state, rows, *rest):
        self.sizes.append(len(rows))
        return super()._step(forward, state, rows, *rest)


@pytest.mark.parametrize(
    ("free", "sizes"),
    [
        (10**9, [128]),
        (2 * 70 * 9 * 1000, [64, 64]),
        (2 * 50 * 9 * 1000, [43, 43, 42]),
        (1, [1] * 128),
    ],
)
def test_on_a_gpu_pieces_are_even_and_fill_half_of_the_memory(monkeypatch, free, sizes):
    """A stand-in for the device says that one sample's forward holds 1000 bytes."""
    held, model = iter([5000, 6000]), nn.Linear(6, 10)

    class OnCuda:
        """A sample whose device is said to be a GPU's."""

        device = torch.device("cuda")

        def requires_grad_(self):
            return torch.zeros(1, 6, requires_grad=True)

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: next(held))
    monkeypatch.setattr(perturbation, "available_memory", lambda device: free)
    at_a_time = perturbation._samples_at_a_time
    monkeypatch.setattr(
        perturbation, "_samples_at_a_time", lambda f, point, count: at_a_time(f, OnCuda(), count)
    )
    monkeypatch.setattr(Pieces, "sizes", [])
    with torch.no_grad():
        Pieces(max_iter=1).search(model, torch.randn(128, 6))
    assert Pieces.sizes == sizes


def test_on_a_cpu_pieces_fit_into_the_caches(monkeypatch):
    monkeypatch.setattr(Pieces, "sizes", [])
    with torch.no_grad():
        Pieces(max_iter=1).search(nn.Linear(6, 10), torch.randn(128, 6))
    assert Pieces.sizes == [26, 26, 26, 25, 25]  # of 256 // 9 at most


def test_a_linear_network_is_crossed_in_one_step():
    """Its boundary is where DeepFool puts it; the overshoot carries 2 % beyond."""
    model = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0], [-5.0, 12.0]]))
    x = torch.tensor([[1.0, 0.5], [1.0, -0.7]], dtype=torch.float64)
    found = deepfool(model.double(), x)
    # To class 2 of sample 0: (3 + 2) - (-5 + 6) = 4 over ‖(8, -8)‖; to 1 of it: 5 over 5.
    expected = torch.tensor([4 / 128**0.5, 0.2 / 5], dtype=torch.float64)
    torch.testing.assert_close(found.norm, 1.02 * expected)
    assert found.reached.tolist() == [2, 1]
    assert found.iterations.tolist() == [1, 1]


def test_only_the_likeliest_candidates():
    model = nn.Linear(2, 3).double()
    with torch.no_grad():  # class 2 is nearest, class 1 the likeliest
        model.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 100.0]]))
        model.bias.copy_(torch.tensor([0.0, 0.0, -0.1]))
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert deepfool(model, x).reached.tolist() == [2]
    found = deepfool(model, x, num_candidates=1)
    assert found.reached.tolist() == [1]
    torch.testing.assert_close(found.norm, torch.tensor([1.02], dtype=torch.float64))
    assert deepfool(model, x, num_candidates=7).reached.tolist() == [2]


class Odd(nn.Module):
    """Logits [own, x - 2 (0 where x < 0, own where x = 5), -inf] by the first element x of a
    sample; own is 1, and NaN where x > 9."""

    def forward(self, x):
        x = x[:, :1]
        own = torch.ones_like(x).masked_fill(x > 9, torch.nan)
        other = torch.where(x == 5, own, (x - 2) * (x >= 0))
        return torch.cat([own, other, torch.full_like(own, -torch.inf)], dim=1)


def test_samples_that_do_not_cross():
    """Flat (no gradient), tied from the start, and not finite; a class at -inf is never reached."""
    x = torch.tensor([[-1.0, 0.0], [5.0, 0.0], [10.0, 0.0], [1.0, 0.0]])
    found = deepfool(Odd(), x)
    assert found.norm[:2].tolist() == [torch.inf, 0.0]
    assert found.norm[2].isnan()
    assert found.reached.tolist() == [-1, 1, -1, 1]
    assert found.iterations.tolist() == [0, 0, 0, 1]
    assert (found.perturbation[:3] == 0).all()
    one = deepfool(Odd(), x[3:])
    torch.testing.assert_close(one.perturbation, torch.tensor([[2 * 1.02, 0.0]]))


def test_given_up_after_max_iter_and_where_it_is_flat():
    model, x = small_cnn(), images(20)
    whole = deepfool(model, x)
    few = int(whole.iterations.min())
    found, late = deepfool(model, x, max_iter=few), whole.iterations > few
    assert 0 < late.sum() < len(x)
    assert found.norm[late].isinf().all()
    assert (found.reached[late] == -1).all()
    assert (found.perturbation[late] == 0).all()
    assert (found.iterations == few).all()
    torch.testing.assert_close(found.norm[~late], whole.norm[~late])
    flat = nn.Linear(3, 2)
    flat.weight.data.zero_()
    nowhere = deepfool(flat, torch.rand(2, 3))
    assert nowhere.norm.tolist() == [torch.inf] * 2
    assert nowhere.iterations.tolist() == [0, 0]


def test_half_precision_crosses_too():
    """bfloat16 throughout: the twin x + r that is rounded to it is on the other side, or on the
    boundary. One by one, for the network rounds otherwise in batches of another size."""
    model = small_cnn().bfloat16()
    for x in images(6).bfloat16().split(1):
        found = deepfool(model, x)
        assert found.perturbation.dtype == torch.float32
        with torch.no_grad():
            logits = model((x + found.perturbation).to(x.dtype))[0]
        assert logits[found.reached] == logits.max() >= logits[found.logits.argmax()]


def test_the_model_comes_back_as_it_was():
    model, x = small_cnn(), images(5)
    model.train()
    model.classifier[-1].bias.grad = torch.ones(5).double()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    deepfool(model, x)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert [p.grad is None for p in model.parameters()] == [True] * 7 + [False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not x.requires_grad


@pytest.mark.rounding
def test_a_pool_in_batches(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    model, x = small_cnn(), images(30)
    index = torch.arange(100, 130)
    whole = deepfool(model, x)
    scores = deepfool_scores(model, x, batch_size=7, sample_index=index)
    assert "DeepFool" in capsys.readouterr().err
    np.testing.assert_allclose(scores.perturbation_norm, whole.norm, rtol=RTOL)
    assert scores.perturbation_norm.dtype == np.float32
    assert scores.index.tolist() == index.tolist()
    assert scores.pseudo_label.tolist() == whole.logits.argmax(1).tolist()
    assert np.isnan(scores.ldr).all()
    mixed = deepfool_scores(model.float(), x.float(), amp="bf16", progress=False)
    assert np.isfinite(mixed.perturbation_norm).sum() > 20


def test_a_pool_with_odd_samples(tmp_path):
    x = torch.tensor([[-1.0, 0.0], [5.0, 0.0], [10.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="sample 2: the model's logits are not finite"):
        deepfool_scores(Odd(), x, progress=False)
    with pytest.warns(RuntimeWarning, match="no other class from 1 of 4 samples in 50 iterations"):
        scores = deepfool_scores(Odd(), x, on_nonfinite="skip", progress=False)
    expected = [np.inf, 0.0, np.nan, 2.04]
    np.testing.assert_allclose(scores.perturbation_norm, expected, rtol=1e-6)
    scores.save(tmp_path / "scores.npz")
    loaded = PoolScores.load(tmp_path / "scores.npz")
    np.testing.assert_array_equal(loaded.perturbation_norm, scores.perturbation_norm)
    empty = deepfool_scores(MLP(2, 3, hidden=4), x[:0], progress=False)
    assert empty.perturbation_norm.shape == (0,)


X = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DeepFool(overshoot=-0.1), ValueError, "overshoot must be finite and at least 0"),
        (lambda: DeepFool(overshoot="2"), TypeError, "overshoot must be a number"),
        (lambda: DeepFool(max_iter=0), ValueError, "max_iter must be at least 1"),
        (lambda: DeepFool(num_candidates=0), ValueError, "num_candidates must be at least 1"),
        (lambda: DeepFool(backend="cuda"), ValueError, "backend must be"),
        (lambda: deepfool(3, X), TypeError, "model must be callable"),
        (lambda: deepfool(nn.Linear(4, 2), X.long()), TypeError, "x must be floating"),
        (lambda: deepfool(nn.Linear(4, 2), X[:0]), ValueError, "at least one sample"),
        (lambda: deepfool(lambda x: x.detach() + torch.eye(4)[:2], X), ValueError, "autograd"),
        (lambda: deepfool_scores(nn.Linear(4, 2), X, batch_size="auto"), TypeError, "batch_size"),
        (lambda: deepfool_scores(nn.Linear(4, 2), X, amp="auto"), ValueError, "'bf16' or 'fp16'"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
