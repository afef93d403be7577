"""Scoring by CUDA graphs, and copies beside the computation, on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vaal_ext.cuda.recorder import CudaRecorder
from vaal_ext.cuda.transfers import device_batches, to_device, to_host
from vaal_ext.pool import run as scoring
from vaal_ext.scorer import LDRScorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
DEVICE = torch.device("cuda")

# The networks are float64, so that eager and replayed scores, computed by whatever kernels the
# libraries choose, agree far beyond the last place of the float32 that PoolScores holds.
LAST_PLACE = 2.0**-23


def network(seed=0):
    """BatchNorm and dropout, whose state a scoring must leave alone, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Tanh(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(8 * 36, 4),
        )
    return model.double().to(DEVICE).train()


def images(count=29, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 6, 6, generator=generator, dtype=torch.float64)


def scorer(model, cuda_graph, **settings):
    settings = {"eps": 1.0, "num_iters": 3, "batch_size": 8, **settings}
    return LDRScorer(model, cuda_graph=cuda_graph, **settings)


def assert_same(scores, expected, rtol=LAST_PLACE):
    for name in ("ldr", "entropy", "margin"):
        np.testing.assert_allclose(getattr(scores, name), getattr(expected, name), rtol=rtol)
    assert np.array_equal(scores.pseudo_label, expected.pseudo_label)
    assert np.array_equal(scores.index, expected.index)
    np.testing.assert_allclose(scores.posterior_mean, expected.posterior_mean, rtol=max(rtol, 1e-9))


@pytest.fixture
def recordings(monkeypatch):
    """The batch size of every recording that is made."""
    sizes = []
    record = CudaRecorder.record

    def counted(self, function, *inputs):
        sizes.append(len(inputs[0]))
        return record(self, function, *inputs)

    monkeypatch.setattr(CudaRecorder, "record", counted)
    return sizes


@pytest.mark.parametrize("count", [1, 8, 16, 24, 29])
def test_a_graph_scores_as_the_eager_passes_do(recordings, count):
    model, pool = network(), images(count)
    scores = scorer(model, True).score(pool, progress=False)
    assert recordings == ([8] if count >= 16 else [])
    assert_same(scores, scorer(model, False).score(pool, progress=False))


@pytest.mark.parametrize("settings", [{"method": "fisher"}, {"sign": "max"}], ids=str)
def test_every_search_can_be_captured(recordings, settings):
    model, pool = network(), images()
    scores = scorer(model, True, **settings).score(pool, progress=False)
    assert recordings == [8]
    assert_same(scores, scorer(model, False, **settings).score(pool, progress=False))


@pytest.mark.parametrize("pinned", [False, True])
def test_pools_of_every_kind_come_across(pinned):
    model, pool = network(), images()
    expected = scorer(model, False).score(pool, progress=False)
    loader = DataLoader(
        TensorDataset(pool), batch_size=8, shuffle=True, num_workers=1, pin_memory=pinned
    )
    for same in (pool.pin_memory() if pinned else pool.to(DEVICE), TensorDataset(pool), loader):
        assert_same(scorer(model, True).score(same, progress=False), expected)


def test_weights_changed_and_replaced_between_two_calls(recordings):
    model, pool = network(), images()
    graphed, eager = scorer(model, True), scorer(model, False)
    first = graphed.score(pool, progress=False)
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    changed = graphed.score(pool, progress=False)
    assert_same(changed, eager.score(pool, progress=False))
    model[5] = network(seed=7)[5]
    replaced = graphed.score(pool, progress=False)
    assert_same(replaced, eager.score(pool, progress=False))
    assert recordings == [8, 8, 8]
    assert not np.allclose(first.ldr, changed.ldr)
    assert not np.allclose(changed.ldr, replaced.ldr)


def test_scoring_leaves_no_trace():
    model = network()
    flags = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = torch.get_rng_state(), torch.cuda.get_rng_state(DEVICE)
    scorer(model, True).score(images(), progress=False)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.cuda.get_rng_state(DEVICE), states[1])
    assert torch.cuda.get_sync_debug_mode() == 0
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


class Waits(nn.Module):
    """Waits for the device in its forward."""

    def __init__(self, wait):
        super().__init__()
        self.inner, self.wait = network(), wait

    def forward(self, x):
        self.wait(x)
        return self.inner(x)


WAITS = {
    "a value": lambda x: x[0, 0, 0, 0].item(),
    "a copy": lambda x: x[:1].cpu(),
    "a size": lambda x: x[x > 0],
    "the device": lambda x: torch.cuda.synchronize(),
    "the accelerator": lambda x: torch.accelerator.synchronize(),
    "the stream": lambda x: torch.cuda.current_stream().synchronize(),
    "an event": lambda x: torch.cuda.current_stream().record_event().synchronize(),
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_model_that_waits_is_scored_eagerly_after_one_warning(recordings, wait):
    model, pool = Waits(WAITS[wait]), images()
    with pytest.warns(RuntimeWarning, match="the host waits for the device") as caught:
        scores = scorer(model, "auto").score(pool, progress=False)
    assert len(caught) == 1
    assert recordings == []
    assert_same(scores, scorer(model, False).score(pool, progress=False))
    with pytest.raises(RuntimeError, match="cuda_graph=True, but no graph can be captured"):
        scorer(model, True).score(pool, progress=False)
    torch.rand(3, device=DEVICE)  # the generator is in order


def test_a_wait_that_nobody_sees_ends_the_capture_and_the_scores_are_right(recordings):
    def wait(x):  # torch.Event has no Python on its way
        event = torch.Event("cuda")
        event.record()
        event.synchronize()

    model, pool = Waits(wait), images()
    with pytest.warns(RuntimeWarning, match="going on without one"):
        scores = scorer(model, "auto").score(pool, progress=False)
    assert recordings == [8]
    assert_same(scores, scorer(model, False).score(pool, progress=False))
    assert nn.functional.dropout(torch.ones(3, device=DEVICE)).shape == (3,)


def test_after_a_failed_capture_random_numbers_come_again():
    x = torch.ones(3, device=DEVICE)

    def waits(x):
        return (nn.functional.dropout(x) * x.sum().item(),)

    with pytest.raises(RuntimeError, match="put the device's random generator in order"):
        CudaRecorder(DEVICE).record(waits, x)
    torch.cuda.synchronize()
    assert nn.functional.dropout(x).shape == (3,)
    replay, (result,) = CudaRecorder(DEVICE).record(lambda x: (x + 1,), x)
    replay()
    assert result.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("bad", [3, 12, 20, 28])
def test_logits_that_are_not_finite_are_found_in_every_batch(bad):
    model, pool = network(), images()
    pool[bad] = torch.nan
    index = torch.arange(29) + 100
    with pytest.raises(ValueError, match=f"sample {100 + bad}: the model's logits are not finite"):
        scorer(model, True).score(pool, sample_index=index, progress=False)
    skipping = {"on_nonfinite": "skip"}
    scores = scorer(model, True, **skipping).score(pool, sample_index=index, progress=False)
    expected = scorer(model, False, **skipping).score(pool, sample_index=index, progress=False)
    assert scores.pseudo_label[bad] == -1
    assert_same(scores, expected)


def test_out_of_memory_goes_on_with_smaller_graphs(recordings):
    inner, pool = network(), images()

    class Hungry(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            if len(x) > 4:
                raise torch.OutOfMemoryError
            return self.inner(x)

    with pytest.warns(RuntimeWarning, match="going on with 4"):
        scores = scorer(Hungry(), True).score(pool, progress=False)
    assert recordings == [4]
    assert_same(scores, scorer(inner, False).score(pool, progress=False))


def test_bytes_are_normalised_in_the_graph(recordings):
    model = network().float()
    pool = torch.randint(256, (29, 2, 6, 6), generator=torch.Generator().manual_seed(2)).byte()
    settings = {"normalize": ((0.4, 0.5), 0.25), "eps": 3.0}
    scores = scorer(model, True, **settings).score(pool, progress=False)
    assert len(recordings) == 1
    expected = scorer(model, False, **settings).score(pool, progress=False)
    # TF32 (2^-11) moves J by about half a percent where the logits differ by 0.3, as at this eps.
    np.testing.assert_allclose(scores.ldr, expected.ldr, rtol=0.02)


def test_a_compiled_model_in_a_graph(recordings):
    model, pool = network(), images()
    scores = scorer(model, True, compile_model=True).score(pool, progress=False)
    assert recordings == [8]
    assert_same(scores, scorer(model, False).score(pool, progress=False))


def test_autocast_in_a_graph():
    # Logits rounded to bfloat16 (2^-9) move J by about 2 % where they differ by 0.3, as they do
    # at this eps. A weight left uncast or taken from a stale cache would be off by its own size.
    model, pool = network().float(), images().float()
    settings = {"amp": "bf16", "eps": 3.0}
    scores = scorer(model, True, **settings).score(pool, progress=False)
    expected = scorer(model, False, **settings).score(pool, progress=False)
    np.testing.assert_allclose(scores.ldr, expected.ldr, rtol=0.05)


def test_scoring_waits_for_no_batch(monkeypatch):
    def watched(batches, device):
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield from device_batches(batches, device)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(scoring, "device_batches", watched)
    for cuda_graph in (True, False):
        scorer(network(), cuda_graph).score(images(), progress=False)


def test_copies_arrive_whole():
    # Large enough that a copy takes a while, and more batches than are held at once.
    given = [torch.full((1 << 22,), float(number)) for number in range(12)]
    sums = []
    for x, number in device_batches(zip(given, range(12), strict=True), DEVICE):
        assert x.device.type == "cuda"
        for _ in range(20):
            x = x * 1.0
        sums.append((number, to_host(x.double().mean())))
    assert [(number, total().item()) for number, total in sums] == [(n, n) for n in range(12)]


def test_transfers_are_exact():
    x = images()
    assert torch.equal(to_host(to_device(x, DEVICE))(), x)
