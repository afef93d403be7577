"""The ways to run a pool (bytes, memory formats, compiled, chosen by trial) score it alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vaal_ext import ops
from vaal_ext.perturbation.ldr import LDR
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool.batch_run import BatchRun, Mode
from vaal_ext.scorer import LDRScorer, posterior_scores

CPU = torch.device("cpu")
STEP = {"eps": 2.0, "num_iters": 2}


class Wide(nn.Sequential):
    """Takes float32 and reckons in float64, where nothing that another processor may sum in
    another order is seen in scores of float32."""

    def forward(self, x):
        return super().forward(x.double())


def smooth_cnn(channels=3, kind=Wide):
    """Smooth, so that rounding moves its gradient by rounding (at a kink of a ReLU it jumps)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(channels, 8, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()]
        model = kind(*layers, nn.Linear(8 * 9, 4)).eval()
    return model.double() if kind is Wide else model


def images(n, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (n, channels, 6, 6), generator=generator, dtype=torch.uint8)


def assert_equal_to_rounding(scores, expected):
    # The network reckons in float64; its input is float32. A pixel made by x*scale + shift or by
    # (x/255 - mean)/std differs by 2^-22 of its size, at most 5, a sample of 108 by 1.3e-5. LDR
    # grows as the square of a length, here 2: it changes by that share of itself as it is measured
    # from there, and by as much as r turns.
    np.testing.assert_allclose(scores.ldr, expected.ldr, rtol=3e-5)
    np.testing.assert_allclose(scores.entropy, expected.entropy, rtol=1e-5)
    np.testing.assert_allclose(scores.margin, expected.margin, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.posterior_mean, expected.posterior_mean, rtol=1e-6)
    assert np.array_equal(scores.pseudo_label, expected.pseudo_label)
    assert np.array_equal(scores.index, expected.index)


# --- bytes ------------------------------------------------------------------------------------

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def by_hand(x, mean, std):
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (mean, std))
    return ((x.double() / 255 - mean) / std).float()


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("mean", "std"), [(MEAN, STD), (0.1, 0.3), (list(MEAN), 0.3), (torch.tensor(MEAN), 1)]
)
def test_bytes_score_as_the_floats_made_by_hand(backend, mean, std):
    x, model = images(20), smooth_cnn()
    floats = by_hand(x, mean if not torch.is_tensor(mean) else MEAN, std)
    settings = {**STEP, "backend": backend, "batch_size": 8}
    expected = LDRScorer(model, **settings).score(floats, progress=False)
    scorer = LDRScorer(model, **settings, normalize=(mean, std))
    for pool in (x, x.numpy(), TensorDataset(x), x.to(memory_format=torch.channels_last)):
        assert_equal_to_rounding(scorer.score(pool, progress=False), expected)
    summary = posterior_scores(model, x, normalize=(mean, std), backend=backend, progress=False)
    np.testing.assert_allclose(summary.entropy, expected.entropy, rtol=1e-5)


def test_bytes_reach_the_network_in_its_units():
    seen = []

    def model(x):
        seen.append(x.detach().clone())
        return x.flatten(1)[:, :4]

    x = images(5)
    posterior_scores(model, x, normalize=(MEAN, STD), progress=False)
    assert seen[0].dtype == torch.float32
    # x·scale + shift rounds each of three operations to 2^-24 of at most max(|x·scale|, |shift|),
    # which is 5 here.
    torch.testing.assert_close(seen[0], by_hand(x, MEAN, STD), rtol=0, atol=3 * 5 * 2**-24)
    seen.clear()
    LDRScorer(model, eps=2.0, normalize=(MEAN, STD)).score(x, progress=False)
    del seen[:3]  # the looks at the first batch
    # eps is a length of what the network sees.
    for moved, radius in ((seen[0], 0.0), (seen[1], 2.0)):
        length = (moved - by_hand(x, MEAN, STD)).flatten(1).norm(dim=1)
        torch.testing.assert_close(length, torch.full((5,), radius), rtol=1e-5, atol=1e-5)


def test_the_clean_pass_serves_ldr_and_posterior():
    model, calls = smooth_cnn(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    LDRScorer(model, **STEP).score(images(5).float() / 255, progress=False)
    assert len(calls) == 3 + STEP["num_iters"] + 2  # three looks at the first batch


# --- memory formats ---------------------------------------------------------------------------


@pytest.mark.rounding
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_changes_the_strides_and_nothing_else(channels):
    model, x, index = smooth_cnn(channels), images(9, channels).float() / 255, torch.arange(9)
    strides = []
    model.register_forward_pre_hook(lambda _m, inputs: strides.append(inputs[0].stride()))
    run = BatchRun(model, None, CPU, LDR(SearchSettings(**STEP)), "fused", None)
    plain = run(x, index)
    assert set(strides) == {x.stride()}
    strides.clear()
    last = replace(run, mode=Mode(channels_last=True))(x, index)
    assert set(strides) == {(36 * channels, 1, 6 * channels, channels)}
    torch.testing.assert_close(last.logits, plain.logits, rtol=1e-12, atol=1e-12)
    # The points are float32: their norms may be summed in another order, 2^-23 of the step.
    values = (scores.table[:, run.columns.index("value")] for scores in (last, plain))
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)


def test_a_sample_starts_in_one_direction_whatever_the_memory_format():
    x, index = images(9).float(), torch.arange(9)
    plain = ops.random_perturb(x, 1.0, seed=3, sample_index=index)
    last = x.to(memory_format=torch.channels_last)
    moved = ops.random_perturb(last, 1.0, seed=3, sample_index=index)
    assert moved.is_contiguous(memory_format=torch.channels_last)
    # The direction is the same; its norm may be summed in another order: the last place of 255.
    torch.testing.assert_close(moved, plain, rtol=2**-23, atol=0)


# --- chosen by trial --------------------------------------------------------------------------


@pytest.mark.rounding
@pytest.mark.parametrize("kind", ["tensor", "loader"])
def test_auto_says_what_it_chose_and_scores_alike(backend, kind, capsys):
    x, model = images(300).float() / 255, smooth_cnn(kind=nn.Sequential)  # autocast leaves float64
    expected = LDRScorer(model, **STEP, backend=backend).score(x, progress=False)
    pool = x if kind == "tensor" else DataLoader(TensorDataset(x), batch_size=64, shuffle=True)
    scorer = LDRScorer(model, **STEP, backend=backend, amp="auto", batch_size="auto")
    assert scorer.chosen is None
    scores = scorer.score(pool)
    chosen, shown = scorer.chosen, capsys.readouterr().err
    assert chosen.report in shown
    assert "float32: " in chosen.report
    if kind == "tensor":
        assert 1 <= chosen.batch_size <= 300
        assert f"batch size {chosen.batch_size} (samples/s" in chosen.report
    else:
        assert chosen.batch_size is None
    # 0.999 over the first 256 samples; the others are drawn from the same images.
    assert np.corrcoef(scores.ldr, expected.ldr)[0, 1] > 0.99


def test_too_few_samples_stay_in_float32():
    scorer = LDRScorer(smooth_cnn(), **STEP, amp="auto")
    scorer.score(images(255).float() / 255, progress=False)
    assert scorer.chosen.mode == Mode()
    assert "255 samples are too few" in scorer.chosen.report


@pytest.mark.slow
def test_the_batch_size_keeps_to_its_memory_limit():
    # The product and its sine take 8.6 MB of a sample, so 34 MB hold 3 samples at most. (Of the 8
    # that are tried each is larger than any block that the C library may have kept.)
    def model(x):
        wide = x.flatten(1).repeat(1, 10_000).view(len(x), 4, -1)
        return (wide * torch.arange(1.0, 5.0).view(1, 4, 1)).sin().mean(2)

    x = images(16).float() / 255
    scorer = LDRScorer(model, **STEP, batch_size="auto", memory_limit=34 * 10**6)
    scorer.score(x, progress=False)
    assert scorer.chosen.batch_size <= 3
    free = LDRScorer(model, **STEP, batch_size="auto", memory_limit=2**40)
    free.score(x, progress=False)
    assert free.chosen.batch_size >= 8


def test_an_empty_pool_with_everything_on_auto():
    scorer = LDRScorer(pytest.fail, **STEP, amp="auto", batch_size="auto")
    assert scorer.score(torch.zeros(0, 3), progress=False).num_samples == 0


def test_a_trial_reads_few_samples():
    read = []

    class Reads(list):
        def __getitem__(self, position):
            read.append(position)
            return super().__getitem__(position)

    scorer = LDRScorer(smooth_cnn(), **STEP, batch_size="auto")
    scorer.score(Reads(images(300).float() / 255), progress=False)
    spread = [i * 300 // 64 for i in range(64)]  # which are looked at, for noise
    assert sorted(read) == sorted([*range(64), *spread, *range(300)])


# --- compiled ---------------------------------------------------------------------------------


@pytest.mark.rounding
@pytest.mark.slow
def test_a_compiled_model_scores_alike_and_is_given_back(backend):
    class Counting(nn.Module):
        """Writes to a buffer in eval mode too, which scoring must undo."""

        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)
            )
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls.add_(1)
            return self.layers(x)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Counting().double().train()
    x = torch.randn(22, 6, generator=torch.Generator().manual_seed(1)).double()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = {**STEP, "backend": backend, "batch_size": 11}
    expected = LDRScorer(model, **settings).score(x, progress=False)
    torch._dynamo.utils.counters.clear()
    compiled = LDRScorer(model, **settings, compile_model=True).score(x, progress=False)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert_equal_to_rounding(compiled, expected)
    assert model.training
    assert model.layers[1].training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.state_dict().keys() == before.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
