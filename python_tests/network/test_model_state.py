"""A scored model is afterwards exactly what it was, whatever happened inside it."""

import copy

import pytest
import torch
from torch import nn

from vaal_ext import LDRScorer, ldr_scores
from vaal_ext.network.state import borrowed, home_device

CPU = torch.device("cpu")


class Restless(nn.Module):
    """Does in eval mode what it should not: writes, replaces, adds and removes buffers, draws."""

    def __init__(self):
        super().__init__()
        self.register_buffer("written", torch.zeros(3))
        self.register_buffer("through_data", torch.tensor([0.0, torch.nan]))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("removed", torch.ones(1))
        self.register_buffer("empty", None)
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("expanded", torch.ones(1).expand(4))
        self.fail = False

    def forward(self, x):
        self.written.mul_(-1)  # 0 becomes -0: equal, but not the same bits
        self.through_data.data.add_(1)
        self.replaced = self.replaced + 1
        if "removed" in self._buffers:
            del self.removed
        self.empty = torch.rand(2)
        self.sparse.mul_(2)
        self.register_buffer("added", torch.zeros(1), persistent=False)
        if self.fail:
            raise ArithmeticError("inside the model")
        return x


def network():
    """Frozen and unfrozen parameters, some with a gradient, submodules in mixed modes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        Restless(),
        nn.Flatten(),
        nn.Linear(4 * 36, 5),
    )
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    model[7].weight.grad = torch.full_like(model[7].weight, 3.0)
    model.train()
    model[1].eval()
    return model


def bits(tensor):
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return dense.detach().contiguous().numpy().tobytes()


def state(model):
    """Everything that must not change: identities, flags and bits."""
    return {
        "training": [(id(m), m.training) for m in model.modules()],
        "parameters": [
            (
                name,
                id(p),
                bits(p),
                p.requires_grad,
                None if p.grad is None else (id(p.grad), bits(p.grad)),
            )
            for name, p in model.named_parameters()
        ],
        "buffers": [
            (
                id(m),
                sorted(m._buffers),
                {n: b is not None and bits(b) for n, b in m._buffers.items()},
            )
            for m in model.modules()
        ],
        "buffer objects": sorted(id(b) for b in model.buffers()),
        "state_dict": set(model.state_dict()),
        "rng": bits(torch.get_rng_state()),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


X = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def score_batch(model, x):
    return ldr_scores(model, x, eps=1.0, num_iters=2)


def score_pool(model, x):
    scorer = LDRScorer(model, eps=1.0, num_iters=2, batch_size=4)
    return scorer.score(x, progress=False)


@pytest.mark.parametrize("score", [score_batch, score_pool])
@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_as_before(score, fail):
    model = network()
    model[5].fail = fail
    x = X.clone()
    before = state(model)
    kept = list(model.buffers())  # so that no id is used again
    if fail:
        with pytest.raises(ArithmeticError, match="inside the model"):
            score(model, x)
    else:
        score(model, x)
    assert state(model) == before
    assert torch.equal(x, X)
    assert x.grad is None
    assert len(kept) == len(list(model.buffers()))


def test_the_model_is_as_before_when_a_later_batch_fails():
    model = network()
    before = state(model)
    bad = torch.cat([X, torch.full_like(X, torch.nan)])
    with pytest.raises(ValueError, match="sample 6"):
        score_pool(model, bad)
    assert state(model) == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("score", [score_batch, score_pool])
def test_any_grad_mode_around_the_call(context, score):
    model = network()
    expected = torch.as_tensor(getattr(score(model, X), "ldr", score_batch(model, X)))
    with context():
        before = state(model)
        x = X.clone()  # an inference tensor under inference_mode
        scores = score(model, x)
        assert state(model) == before
    got = torch.as_tensor(getattr(scores, "ldr", scores))
    assert torch.equal(got, expected)
    assert not got.is_inference()
    assert (got > 0).all()


def test_a_graph_recorded_before_can_still_run_backward():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3)).train()
    loss = model(X).square().sum()
    score_batch(model, X)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_no_parameter_gets_gradient_work():
    seen = []

    class Watch(nn.Linear):
        def forward(self, x):
            mode = (torch.is_grad_enabled(), x.requires_grad, self.training)
            seen.append((*mode, any(p.requires_grad for p in model.parameters())))
            return super().forward(x)

    model = nn.Sequential(nn.Flatten(), Watch(36, 4))
    score_batch(model, X)
    last, moved = (False, False, False, False), (True, True, False, False)
    assert seen == [moved, moved, moved, last]
    assert all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_a_plain_callable_keeps_the_random_state_and_gets_no_gradient():
    weight = torch.randn(36, 4, requires_grad=True)

    def model(x):
        return x.flatten(1) @ weight + torch.rand(4)

    before = torch.get_rng_state()
    score_batch(model, X)
    score_pool(model, X)
    assert torch.equal(torch.get_rng_state(), before)
    assert weight.grad is None
    assert weight.requires_grad


def test_the_flags_are_set_without_calling_train_or_eval():
    class Merging(nn.Linear):
        def train(self, mode=True):
            raise NotImplementedError("as exported programs do")

    model = nn.Sequential(nn.Flatten(), Merging(36, 3))
    assert score_batch(model, X).shape == (6,)
    assert model[1].training


@pytest.mark.rounding
def test_exported_and_scripted_programs():
    torch.manual_seed(0)
    # In float64, where another order of a sum is not seen at 1e-9.
    x = X.double()
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3)).double().eval()
    expected = score_batch(module, x)
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: batch},)).module()
    assert torch.allclose(score_batch(exported, x), expected, rtol=1e-9)
    with pytest.warns(FutureWarning, match="deprecated"):
        scripted = torch.jit.script(copy.deepcopy(module).train())
    assert torch.allclose(score_batch(scripted, x), expected, rtol=1e-9)
    assert scripted.training
    assert all(p.requires_grad for p in scripted.parameters())


def test_models_that_autograd_cannot_use_are_refused():
    with torch.inference_mode():
        model = nn.Linear(36, 2)
    with pytest.raises(ValueError, match=r"made under torch\.inference_mode"):
        score_batch(model, X.flatten(1))
    lazy = nn.LazyLinear(2)
    with pytest.raises(ValueError, match="uninitialised"):
        score_batch(lazy, X.flatten(1))


def test_the_home_of_a_model():
    assert home_device(nn.BatchNorm1d(2, affine=False)) == CPU
    assert home_device(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert home_device(nn.ReLU()) is None
    assert home_device(lambda x: x) is None


def test_borrowing_is_reentrant():
    model = network()
    before = state(model)
    with borrowed(model, CPU), borrowed(model, CPU):
        assert not any(m.training for m in model.modules())
    assert state(model) == before
