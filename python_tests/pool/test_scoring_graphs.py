"""The pool scorer by static buffers and with late results, as on CUDA; here on the CPU."""

from __future__ import annotations

import warnings

import pytest
import torch
from fake_recorder import FakeRecorder
from same_scores import assert_same
from small_network import network, normal
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader, TensorDataset
from watched_ops import HostTensors

from vaal_ext.backend import load_backend
from vaal_ext.cuda.graphs import Replayed
from vaal_ext.network.logits import forward_of
from vaal_ext.ops import _library
from vaal_ext.perturbation import gradient
from vaal_ext.perturbation.ldr import LDR
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool import results
from vaal_ext.pool import run as scoring
from vaal_ext.scorer import LDRScorer


class Network(nn.Sequential):
    """Float64: what the size of a batch does to the rounding is far below the scores' float32."""

    def __init__(self):
        super().__init__(*network(classes=3))


class Hungry(Network):
    """Has memory for four samples at a time."""

    def forward(self, x):
        if len(x) > 4:
            raise torch.OutOfMemoryError
        return super().forward(x)


def score(pool, model=None, **settings):
    sample_index = torch.arange(scoring.pool_size(pool)) + 100
    scorer = LDRScorer(model or Network(), eps=1.0, num_iters=3, batch_size=8, **settings)
    return scorer.score(pool, sample_index=sample_index, progress=False)


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Has the scorer record with the FakeRecorder given and take results one batch late."""

    def use(recorder, required=True):
        monkeypatch.setattr(results, "_RESULTS_BEHIND", {"cpu": 1})
        monkeypatch.setattr(
            scoring,
            "replayed",
            lambda function, *_: Replayed(function, recorder, required=required),
        )
        # A copy that starts at once, whatever is written to its source before it is asked for.
        monkeypatch.setattr(results, "to_host", lambda x: x.clone().cpu)
        return recorder

    return use


@pytest.mark.parametrize("count", [0, 1, 8, 9, 16, 24, 29])
def test_scores_are_those_of_the_plain_passes(as_on_cuda, count):
    expected = score(normal(count))
    recorder = as_on_cuda(FakeRecorder())
    assert_same(score(normal(count)), expected)
    # The first batch is the warm-up; the second, if it is a whole one, is recorded.
    assert recorder.log.count(("record", 8)) == (count >= 16)
    assert recorder.log.count(("replay", 8)) == (-(-count // 8) - 1 if count >= 16 else 0)


def test_the_last_batch_keeps_its_own_padding(as_on_cuda):
    class Texts(Network):
        """Token ids [B, 6], 0 for padding."""

        def encode(self, ids):
            return ids.double().sin(), ids != 0

        def forward(self, point, mask):
            return super().forward(point * mask)

    network = Texts()
    ids = torch.randint(0, 9, (21, 6), generator=torch.Generator().manual_seed(1))
    expected = score(ids, network, encode=network.encode)
    recorder = as_on_cuda(FakeRecorder())
    assert_same(score(ids, network, encode=network.encode), expected)
    assert recorder.log == [("eager", 8), ("record", 8), ("replay", 8), ("replay", 8)]


def test_a_shuffled_loader_with_a_ragged_end(as_on_cuda):
    pool = TensorDataset(normal(29))
    expected = score(pool)
    as_on_cuda(FakeRecorder())
    assert_same(score(DataLoader(pool, batch_size=8, shuffle=True)), expected)


@pytest.mark.parametrize("bad", [3, 12, 20, 28])
def test_late_results_that_are_not_finite(as_on_cuda, bad):
    pool = normal(29)
    pool[bad] = torch.nan
    expected = score(pool, on_nonfinite="skip")
    as_on_cuda(FakeRecorder())
    assert_same(score(pool, on_nonfinite="skip"), expected)
    with pytest.raises(ValueError, match=f"sample {100 + bad}: the model's logits are not finite"):
        score(pool)


def test_batches_that_do_not_fit_are_recorded_in_halves(as_on_cuda):
    expected = score(normal(29))
    recorder = as_on_cuda(FakeRecorder())
    with pytest.warns(RuntimeWarning, match="going on with 4"):
        assert_same(score(normal(29), Hungry()), expected)
    assert recorder.log == [("eager", 8), ("eager", 4), ("record", 4)] + 7 * [("replay", 4)]


def test_out_of_memory_outside_of_a_replay_lets_the_recording_go(as_on_cuda, monkeypatch):
    expected, summed = score(normal(29)), results._posterior_sum
    lengths = []

    def hungry(table, logits):
        lengths.append(len(table))
        if lengths == [8, 8]:  # the second batch, which was the first to be replayed
            raise torch.OutOfMemoryError
        return summed(table, logits)

    monkeypatch.setattr(results, "_posterior_sum", hungry)
    recorder = as_on_cuda(FakeRecorder())
    with pytest.warns(RuntimeWarning, match="going on with 4"):
        assert_same(score(normal(29)), expected)
    # Not replayed in the memory of eight.
    assert recorder.log[:3] == [("eager", 8), ("record", 8), ("replay", 8)]
    assert recorder.log[3:] == [("eager", 4), ("record", 4)] + 5 * [("replay", 4)]


@pytest.mark.parametrize("settings", [{"waits": [True, True]}, {"failures": [RuntimeError("no")]}])
def test_a_model_that_cannot_be_captured(as_on_cuda, settings):
    expected = score(normal(29))
    as_on_cuda(FakeRecorder(**settings), required=False)
    with pytest.warns(RuntimeWarning, match="no CUDA graph can be captured") as caught:
        assert_same(score(normal(29)), expected)
    assert len(caught) == 1


def test_settings_are_refused_before_any_work():
    with pytest.raises(ValueError, match="cuda_graph must be 'auto', True or False, got 'never'"):
        LDRScorer(Network(), eps=1.0, cuda_graph="never")
    scorer = LDRScorer(nn.Identity(), eps=1.0, cuda_graph=True)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="needs a CUDA device, got cpu"):
        scorer.score(normal(3), progress=False)


needs_cuda_ops = pytest.mark.skipif(not _library.HAS_CUDA, reason="the CUDA kernels are not built")


@pytest.mark.parametrize("backend", [pytest.param("fused", marks=needs_cuda_ops), "reference"])
def test_a_batch_never_leaves_the_device(monkeypatch, backend):
    # On tensors that have a CUDA device but no memory; asking for a value would raise. The engine
    # of the backward pass wants a real device, so its result, like x in any case, is made here.
    monkeypatch.setattr(
        gradient, "input_gradient", lambda logits, x, slope, **graph: torch.empty_like(x)
    )
    with FakeTensorMode():
        with torch.device("cuda"):
            model = nn.Sequential(nn.Linear(6, 3), nn.Tanh()).requires_grad_(False)
            x, index = torch.empty(8, 6), torch.arange(8)
        measure = LDR(SearchSettings(eps=1.0, backend=backend))
        with HostTensors() as host:
            roughness = measure.run(forward_of(model, None), x, index)
            _, curvature = load_backend(backend).fisher_direction(roughness.logits)
    assert [tensor.device.type for tensor in (*roughness, curvature)] == ["cuda"] * 4
    assert roughness.value.shape == (8,)
    assert host.ops == []
