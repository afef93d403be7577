"""The pool scorer where something goes wrong, or is asked for in a wrong way."""

import inspect
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_network
import torch
from small_network import normal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import vaal_ext
from vaal_ext import LDRScorer, ldr_scores, ops, progress
from vaal_ext.scorer import posterior_scores
from vaal_ext.selection import select

network = partial(small_network.network, classes=3)


class Breaks(nn.Module):
    """Gives `value` in the logits of the samples whose first feature is above `threshold`."""

    def __init__(self, value, rows="one", threshold=50.0):
        super().__init__()
        self.inner, self.value, self.rows, self.threshold = network(), value, rows, threshold

    def forward(self, x):
        logits = self.inner(x)
        broken = torch.zeros_like(logits, dtype=torch.bool)
        broken[:, 1 if self.rows == "one" else slice(None)] = True
        return torch.where(broken & (x[:, :1] > self.threshold), self.value, logits)


# --- logits that are not finite ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "rows"), [(torch.nan, "one"), (torch.inf, "one"), (-torch.inf, "all")]
)
@pytest.mark.parametrize("score", ["ldr", "posterior"])
def test_logits_that_are_not_finite(backend, value, rows, score):
    model, x = Breaks(value, rows), normal(20)
    x[[13, 17], 0] = 100.0
    index = torch.arange(20) + 1000

    def run(pool, index, on_nonfinite):
        common = {"backend": backend, "batch_size": 6, "on_nonfinite": on_nonfinite}
        if score == "posterior":
            return posterior_scores(model, pool, sample_index=index, progress=False, **common)
        scorer = LDRScorer(model, eps=1.0, **common)
        return scorer.score(pool, sample_index=index, progress=False)

    with pytest.raises(ValueError, match="sample 1013: the model's logits are not finite"):
        run(x, index, "raise")
    scores = run(x, index, "skip")
    good = np.delete(np.arange(20), [13, 17])
    assert np.array_equal(scores.pseudo_label[[13, 17]], [-1, -1])
    for column in (scores.ldr, scores.entropy, scores.margin):
        assert np.isnan(column[[13, 17]]).all()
    alone = run(x[good], index[good], "raise")
    for name in ("ldr", "entropy", "margin"):
        # The batches are others: float64 rounding, far below float32's last place.
        np.testing.assert_allclose(getattr(scores, name)[good], getattr(alone, name), rtol=1.2e-7)
    assert np.array_equal(scores.pseudo_label[good], alone.pseudo_label)
    np.testing.assert_allclose(scores.posterior_mean, alone.posterior_mean, rtol=1e-13)
    if score == "ldr":
        chosen = select(scores.ldr, scores.pseudo_label, 18, num_classes=3)
        assert sorted(chosen) == sorted(good)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("broken_call", [2, 3, 4])
def test_logits_that_break_on_the_way_count_too(backend, value, broken_call):
    inner, calls = network(), []

    def model(x):  # call 1 is clean, 2 and 3 are steps of the power iteration, 4 is the last
        calls.append(len(x))
        broken = torch.zeros(len(x), 3, dtype=torch.bool)
        broken[5, 1] = len(calls) == broken_call
        return torch.where(broken, value, inner(x))

    settings = {"eps": 0.5, "num_iters": 2, "backend": backend}
    scores = ldr_scores(model, normal(8), **settings)
    assert torch.isnan(scores).tolist() == [i == 5 for i in range(8)]
    calls.clear()
    broken_call += 3  # the looks at the first batch come before
    with pytest.raises(ValueError, match="sample 5"):
        LDRScorer(model, **settings).score(normal(8), progress=False)


def test_a_pool_without_a_finite_sample_and_an_empty_pool(backend):
    model, x = Breaks(torch.nan, threshold=-torch.inf), normal(3)
    scorer = LDRScorer(model, eps=1.0, backend=backend, on_nonfinite="skip")
    scores = scorer.score(x, progress=False)
    assert np.isnan(scores.posterior_mean).all()
    assert scores.num_classes == 3
    empty = scorer.score(x[:0], progress=False)
    assert (empty.num_samples, empty.num_classes) == (0, 0)


# --- flat places ------------------------------------------------------------------------------


def test_flat_samples_score_zero_and_are_counted_once(backend):
    inner = network()

    def model(x):  # dead below -50
        return inner(x) * (x[:, :1] > -50)

    x = normal(10)
    x[[2, 7], 0] = -100.0
    scorer = LDRScorer(model, eps=1.0, backend=backend, batch_size=3)
    with pytest.warns(RuntimeWarning, match="LDR is 0 for 2 of 10 samples") as caught:
        scores = scorer.score(x, progress=False)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert np.array_equal(np.flatnonzero(scores.ldr == 0), [2, 7])
    assert (np.delete(scores.ldr, [2, 7]) > 0).all()
    assert torch.equal(ldr_scores(model, x[2:3], eps=1.0, backend=backend), torch.zeros(1))


def test_a_flat_sample_scores_zero_though_its_logits_drift(backend):
    # As on a device whose sums are not repeatable: what is left of J is no roughness. Sample 1 is
    # flat at x + xi*u but not at x, to which the second step goes back.
    inner, calls = network(), []

    def model(x):
        calls.append(len(x))
        alive = (x[:, :1] > -50) | (x[:, :1] == -200)
        drift = torch.tensor([1.0, 0.0, 0.0], dtype=x.dtype) * len(calls) * 1e-3
        return inner(x) * alive + drift

    x = normal(3)
    x[0, 0], x[1, 0] = -100.0, -200.0
    steps = {"method": "finite-difference", "xi": 0.1, "num_iters": 2}
    scores = ldr_scores(model, x, eps=1.0, **steps, backend=backend)
    assert torch.equal(scores == 0, torch.tensor([True, True, False]))
    scores = ldr_scores(model, x, eps=1.0, backend=backend)
    assert torch.equal(scores == 0, torch.tensor([True, False, False]))


def test_a_step_lost_in_rounding_is_reported(backend):
    model, x = network().float(), normal(4).float()
    scorer = LDRScorer(model, eps=1.0, xi=1e-12, method="finite-difference", backend=backend)
    with pytest.warns(RuntimeWarning, match="4 of 4 samples.*x \\+ xi\\*u rounds to x"):
        scores = scorer.score(x, progress=False)
    assert (scores.ldr == 0).all()


# --- out of memory ----------------------------------------------------------------------------


class Hungry(nn.Module):
    """Runs out of memory above `most` samples, in the pass given: the first, or one for r."""

    def __init__(self, most, passes):
        super().__init__()
        self.inner, self.most, self.passes, self.sizes = network(), most, passes, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most and x.requires_grad == (self.passes == "perturbed"):
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return self.inner(x)


@pytest.mark.parametrize("passes", ["clean", "perturbed"])
@pytest.mark.parametrize("as_loader", [False, True])
def test_out_of_memory_halves_the_batch_and_goes_on(backend, passes, as_loader):
    x = normal(50)
    settings = {"eps": 1.0, "backend": backend, "batch_size": 20}
    expected = LDRScorer(network(), **settings).score(x, progress=False)
    model = Hungry(6, passes)
    pool = DataLoader(TensorDataset(x), batch_size=20) if as_loader else x
    with pytest.warns(RuntimeWarning, match="out of memory") as caught:
        scores = LDRScorer(model, **settings).score(pool, progress=False)
    sizes = [str(w.message).split("out of memory with ")[1] for w in caught]
    assert sizes == [
        "20 samples at a time: going on with 10",
        "10 samples at a time: going on with 5",
    ]
    assert all(w.filename == __file__ for w in caught)
    assert model.sizes[-1] == 5
    np.testing.assert_allclose(scores.ldr, expected.ldr, rtol=1.2e-7)
    np.testing.assert_allclose(scores.posterior_mean, expected.posterior_mean, rtol=1e-13)
    assert np.array_equal(scores.index, expected.index)


def test_out_of_memory_with_one_sample_is_raised(backend):
    scorer = LDRScorer(Hungry(0, "clean"), eps=1.0, backend=backend, batch_size=2)
    with (
        pytest.warns(RuntimeWarning, match="going on with 1"),
        pytest.raises(torch.OutOfMemoryError),
    ):
        scorer.score(normal(4), progress=False)


# --- the rest ---------------------------------------------------------------------------------


def test_the_number_of_classes_must_stay():
    def model(x):
        return x[:, : len(x)]

    with pytest.raises(ValueError, match="the model gave 2 classes where it gave 3 before"):
        posterior_scores(model, normal(5), batch_size=3, progress=False)


def test_the_device_must_be_the_models():
    model = network().to("meta")
    with pytest.raises(ValueError, match="the model lies on meta: move it before scoring on cpu"):
        LDRScorer(model, eps=1, device="cpu").score(normal(2), progress=False)


@pytest.mark.parametrize("asked", [None, "cuda", "cuda:1"])
def test_batches_go_where_the_model_lies(monkeypatch, asked):
    """On two GPUs, the first of which is the current device; the model only says where it lies."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device, model = torch.device("cuda:1"), nn.Linear(6, 3)
    monkeypatch.setattr(model, "parameters", lambda: iter([SimpleNamespace(device=device)]))
    assert LDRScorer(model, eps=1, device=asked)._run._place(normal(2)) == device
    elsewhere = LDRScorer(model, eps=1, device="cuda:0")
    with pytest.raises(ValueError, match="the model lies on cuda:1: move it before scoring on cud"):
        elsewhere.score(normal(2), progress=False)
    without = LDRScorer(nn.Identity(), eps=1, device=asked)._run._place(normal(2))
    assert without == torch.device(asked or "cpu")


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ValueError, match="device"):
        LDRScorer(network(), eps=1, device=device)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_autocast_runs_the_network_in_half(backend, amp):
    dtypes = []
    model, x = network().float(), normal(30).float()
    model.register_forward_hook(lambda _m, _x, out: dtypes.append(out.dtype))
    settings = {"eps": 2.0, "backend": backend}
    scores = LDRScorer(model, amp=amp, **settings).score(x, progress=False)
    assert set(dtypes) == {{"bf16": torch.bfloat16, "fp16": torch.float16}[amp]}
    full = LDRScorer(model, **settings).score(x, progress=False)
    # Logits of about 1 to 2^-8: a changed score, but the same rough places.
    assert np.corrcoef(scores.ldr, full.ldr)[0, 1] > 0.95


def test_progress_counts_samples_on_request_only(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    scorer = LDRScorer(network(), eps=1.0, batch_size=4)
    scorer.score(normal(10), progress=False)
    assert capsys.readouterr().err == ""
    scorer.score(normal(10))
    shown = capsys.readouterr().err
    assert "8/10" in shown
    assert "samples/s" in shown


def test_a_quiet_run_warns_of_nothing(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer = LDRScorer(network(), eps=1.0, backend=backend)
        scorer.score(DataLoader(TensorDataset(normal(9)), batch_size=4), progress=False)


def test_from_a_pool_to_an_op_it_is_seven_frames(monkeypatch):
    # Who reads a traceback, or the code from the top down, has that many functions to hold in mind.
    found = []

    def op(logits):
        package = str(Path(vaal_ext.__file__).parent)
        found.append([f.filename for f in inspect.stack() if f.filename.startswith(package)])
        return fisher_direction(logits)

    fisher_direction = ops.fisher_direction
    monkeypatch.setattr(ops, "fisher_direction", op)
    LDRScorer(nn.Linear(4, 3), eps=0.1, look=False).score(torch.ones(5, 4), progress=False)
    assert [len(frames) for frames in found] == [6]  # and the op
