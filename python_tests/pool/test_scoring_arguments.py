"""What LDRScorer and ldr_scores ask of their arguments, and of what the model gives."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from same_scores import assert_same
from small_network import network, normal

from vaal_ext import LDRScorer, ldr_scores
from vaal_ext.scorer import posterior_scores

STEPS = {"method": "finite-difference", "xi": 0.5}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({**STEPS, "xi": 0.0}, ValueError, "xi must be finite and above 0, got 0.0"),
        ({**STEPS, "xi": float("nan")}, ValueError, "xi must be finite"),
        ({"eps": -1}, ValueError, "eps must be finite and above 0, got -1"),
        ({"eps": float("inf")}, ValueError, "eps must be finite"),
        ({"eps": "1"}, TypeError, "eps must be a number, got '1'"),
        ({"num_iters": -1}, ValueError, "num_iters must be at least 0, got -1"),
        ({**STEPS, "num_iters": 0}, ValueError, "num_iters must be at least 1, got 0"),
        (
            {"xi": 0.1},
            ValueError,
            "xi must be None with method='direct'.*'finite-difference' makes",
        ),
        ({"method": "newton"}, ValueError, "method must be one of 'direct', .*, got 'newton'"),
        ({"num_iters": 2.0}, TypeError, "num_iters must be an int"),
        ({"smoothing": 0.1}, ValueError, "smoothing must be 0 with method='direct'"),
        ({**STEPS, "smoothing": 1.0}, ValueError, r"smoothing must be in \[0, 1\)"),
        ({"divergence": "backward"}, ValueError, "divergence must be"),
        ({"seed": -1}, ValueError, "seed must be in 0..9223372036854775807"),
        ({"seed": True}, TypeError, "seed must be an int"),
        ({"backend": "auto"}, ValueError, "backend must be 'fused' or 'reference'"),
        ({"model": 3}, TypeError, "model must be callable, got int"),
        (
            {"model": SimpleNamespace(model=network)},
            TypeError,
            r"callable, got SimpleNamespace, which holds a network: pass its \.model",
        ),
        ({"logits_fn": 3}, TypeError, "logits_fn must be callable, got int$"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": "large"}, TypeError, "batch_size must be an int"),
        ({"memory_limit": 0}, ValueError, "memory_limit must be at least 1"),
        ({"normalize": 0.5}, TypeError, r"normalize must be a pair \(mean, std\), got 0.5"),
        ({"normalize": ("a", 1)}, TypeError, "normalize: mean must be a number or numbers"),
        ({"normalize": (0, [])}, TypeError, "normalize: std must be a number or numbers"),
        ({"normalize": (torch.nan, 1)}, ValueError, "normalize: mean must be finite"),
        ({"normalize": (0, [1, 0, 1])}, ValueError, "normalize: std must be above 0"),
        ({"normalize": ([0] * 3, [1] * 4)}, ValueError, "mean is for 3 channels and std for 4"),
        ({"num_workers": -1}, ValueError, "num_workers must be at least 0"),
        ({"amp": "fp8"}, ValueError, "amp must be None, 'bf16', 'fp16' or 'auto', got 'fp8'"),
        ({"on_nonfinite": "ignore"}, ValueError, "on_nonfinite must be 'raise' or 'skip'"),
        ({"look": "no"}, TypeError, "look must be True or False, got 'no'"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(change, error, message):
    settings = {"model": pytest.fail, "eps": 1.0} | change
    model = settings.pop("model")
    with pytest.raises(error, match=message):
        LDRScorer(model, **settings)
    if change.keys() <= {"model", *inspect.signature(ldr_scores).parameters}:
        with pytest.raises(error, match=message):
            ldr_scores(model, normal(2), **settings)


@pytest.mark.parametrize(
    ("x", "index", "error", "message"),
    [
        ([1.0], None, TypeError, "x must be a tensor, got list"),
        (torch.zeros(2, 3, dtype=torch.uint8), None, TypeError, "floating point.*torch.uint8"),
        (torch.tensor(1.0), None, ValueError, "scalar"),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), ValueError, r"shape \[2\]"),
        (torch.zeros(2, 3), torch.zeros(2), TypeError, "integers, got"),
        (torch.zeros(2, 3), [0, 1], TypeError, "integers, got list"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), ValueError, "negative, got -1"),
    ],
)
def test_wrong_inputs_are_refused_before_any_work(x, index, error, message):
    with pytest.raises(error, match=message):
        ldr_scores(pytest.fail, x, eps=1, sample_index=index)
    if isinstance(x, torch.Tensor):
        with pytest.raises(error, match=message):
            LDRScorer(pytest.fail, eps=1).score(x, sample_index=index, progress=False)


@pytest.mark.parametrize(
    ("pool", "normalize", "error", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.uint8), None, TypeError, "uint8: .*normalize="),
        (torch.zeros(2, 3), (0, 1), TypeError, "normalize .* is for .* uint8 .* torch.float32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ([0] * 4, 1), ValueError, r"\[2, 3, 4, 4\]"),
        (torch.zeros(2, dtype=torch.uint8), (0, 1), ValueError, "dimension 1 of the samples"),
    ],
)
def test_pools_that_do_not_fit_normalize_are_refused(pool, normalize, error, message):
    scorer = LDRScorer(pytest.fail, eps=1, normalize=normalize)
    with pytest.raises(error, match=message):
        scorer.score(pool, progress=False)
    with pytest.raises(error, match=message):
        posterior_scores(pytest.fail, pool, normalize=normalize, progress=False)


def test_a_posterior_is_not_compared_across_formats():
    with pytest.raises(ValueError, match="amp must be None, 'bf16' or 'fp16', got 'auto'"):
        posterior_scores(pytest.fail, normal(2), amp="auto")


def test_numpy_numbers_and_integer_tensors_are_welcome(backend):
    model, x = network(), normal(4)
    plain = ldr_scores(model, x, **STEPS, eps=1.0, num_iters=2, seed=3, backend=backend)
    odd = {**STEPS, "xi": np.float32(0.5), "eps": 1, "num_iters": np.int64(2), "seed": np.uint8(3)}
    index = torch.arange(4, dtype=torch.int16)
    assert torch.equal(ldr_scores(model, x, sample_index=index, backend=backend, **odd), plain)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda x: (x, x), TypeError, "the model gave tuple .* pass logits_fn="),
        (lambda x: x.long(), TypeError, "logits must be floating point, got torch.int64"),
        (lambda x: x[:, 0], ValueError, r"got \(3,\), .*torch\.stack\(\[0 \* z, z\], 1\)"),
        (lambda x: x[:, :1], ValueError, r"got \(3, 1\), .*torch\.cat\(\[0 \* z, z\], 1\)"),
        (lambda x: x.sum(), ValueError, r"shape \[B, C\] with B = 3 and C >= 2, got \(\)"),
        (lambda x: x[1:], ValueError, r"got \(2, 6\)"),
        (lambda x: x[:, :0], ValueError, r"got \(3, 0\)"),
        (lambda x: x.detach(), ValueError, "do not depend on the input through autograd"),
        (lambda x: network()(torch.zeros_like(x)), ValueError, "do not depend on the input"),
        (lambda x: x[:, :6] if x.requires_grad else x[:, :5], ValueError, "for x and"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(backend, model, error, message):
    with pytest.raises(error, match=message):
        ldr_scores(model, normal(3), eps=1.0, backend=backend)


def test_logits_fn_takes_the_logits_out(backend):
    inner, x = network(), normal(7)
    settings = {"eps": 1.0, "backend": backend}
    expected = ldr_scores(inner, x, **settings)

    def model(x):
        return {"logits": inner(x), "features": x}

    assert torch.equal(
        ldr_scores(model, x, logits_fn=lambda out: out["logits"], **settings), expected
    )
    with pytest.raises(TypeError, match="logits_fn gave dict"):
        ldr_scores(model, x, logits_fn=lambda out: out, **settings)
    scorer = LDRScorer(model, logits_fn=lambda out: out["logits"], **settings)
    np.testing.assert_array_equal(scorer.score(x, progress=False).ldr, expected.float())


def test_a_scorer_shows_its_settings_in_a_line():
    shown = repr(LDRScorer(network(), eps=1.0, sign="max"))
    assert shown.startswith("LDRScorer(Sequential, eps=1.0, method='direct', num_iters=0, ")
    assert "sign='max'" in shown
    assert "0x" not in shown
    exact = repr(LDRScorer(torch.sin, eps=1.0, method="fisher"))
    assert exact.startswith("LDRScorer(sin, eps=1.0, method='fisher', num_iters=5, ")


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_a_pool_of_another_dtype_is_told_with_the_way(kind):
    with pytest.raises(
        TypeError, match=f"are float32 and the pool's samples {kind}".split("torch.")[0]
    ):
        LDRScorer(network(dtype=torch.float32), eps=1.0).score(normal(9).to(kind), progress=False)


@pytest.mark.parametrize("method", ["direct", "finite-difference"])
def test_an_autocast_region_of_the_caller_has_no_say(method):
    model, x = network(dtype=torch.float32), normal(40).float()
    scorer = LDRScorer(model, eps=0.5, method=method, xi=None if method == "direct" else 0.1)
    plain = scorer.score(x, progress=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(scorer.score(x, progress=False), plain)


def test_what_a_0_may_mean_is_said():
    model, x = network(dtype=torch.float32), normal(40).float()
    with pytest.warns(RuntimeWarning, match="all 40 samples, although no gradient is: eps=1e-25"):
        LDRScorer(model, eps=1e-25, look=False).score(x, progress=False)
    with pytest.warns(RuntimeWarning, match="network is flat around them$"):
        LDRScorer(Flat(), eps=1.0, look=False).score(x, progress=False)
    with pytest.warns(RuntimeWarning, match="or the step xi was so small"):
        LDRScorer(Flat(), eps=1.0, look=False, **STEPS).score(x, progress=False)


class Flat(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.one_hot(x[:, 0].long() % 3, 3) + 0 * x[:, :3]
