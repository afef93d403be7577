"""When a function of batches is recorded, replayed, filled up and given up; on the CPU."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from fake_recorder import FakeRecorder

from vaal_ext.cuda import graphs
from vaal_ext.cuda.graphs import Replayed, let_go, replayed, require_cuda_graph
from vaal_ext.cuda.recorder import CudaRecorder


def rows(x, key):
    """One row in, one row out, no row's arithmetic touched by another's."""
    return torch.sin(x).sum(1) + key, key * 2


def batch(size, seed=0, features=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, features, generator=generator, dtype=dtype)
    return x, torch.randint(1000, (size,), generator=generator)


def run(call, *batches):
    """The results of every batch, taken before the next call overwrites them."""
    return [tuple(output.clone() for output in call(*inputs)) for inputs in batches]


def check(call, *batches):
    for given, results in zip(batches, run(call, *batches), strict=True):
        for result, expected in zip(results, rows(*given), strict=True):
            assert torch.equal(result, expected)


def test_a_ragged_pool_is_recorded_at_its_second_batch_and_replayed_to_the_end():
    recorder = FakeRecorder()
    sizes = [8, 8, 8, 8, 3]
    check(
        Replayed(rows, recorder, required=True), *[batch(n, seed) for seed, n in enumerate(sizes)]
    )
    assert recorder.log == [("eager", 8), ("record", 8)] + [("replay", 8)] * 4


def test_results_stay_until_the_next_call_only():
    call = Replayed(rows, FakeRecorder(), required=True)
    call(*batch(4))
    first = call(*batch(4, seed=1))
    kept = first[0].clone()
    second = call(*batch(4, seed=2))
    assert first[0] is second[0]
    assert not torch.equal(first[0], kept)


def test_a_batch_is_copied_whatever_its_strides():
    call = Replayed(rows, FakeRecorder(), required=True)
    transposed = batch(6)[0].t().contiguous().t()
    check(call, (transposed, batch(6)[1]), batch(6, seed=1), (transposed[::2], batch(3)[1]))


@pytest.mark.parametrize(
    "other",
    [{"size": 9}, {"features": 4}, {"dtype": torch.float64}],
    ids=["size", "shape", "dtype"],
)
def test_other_batches_run_eagerly_until_two_in_a_row_are_alike(other):
    recorder = FakeRecorder()
    call = Replayed(rows, recorder, required=True)
    usual, unusual = {"size": 8}, {"size": 8, **other}
    order = [usual, usual, unusual, usual, unusual, unusual]
    check(call, *[batch(seed=seed, **kind) for seed, kind in enumerate(order)])
    expected = ["eager", "record", "replay", "eager", "replay", "eager", "record", "replay"]
    assert [what for what, _ in recorder.log] == expected


def test_a_first_wait_is_let_pass():
    recorder = FakeRecorder(waits=[True])
    check(Replayed(rows, recorder, required=True), *[batch(4, seed) for seed in range(4)])
    assert [what for what, _ in recorder.log] == ["eager", "eager", "record", "replay", "replay"]


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (FakeRecorder(waits=[True, True]), "the host waits for the device"),
        (FakeRecorder(failures=[RuntimeError("not permitted\nwhen capturing")]), "(not permitted)"),
        (FakeRecorder(failures=[TypeError()]), "(TypeError)"),
    ],
    ids=["waits", "fails", "fails without a word"],
)
def test_what_cannot_be_captured_runs_eagerly_after_one_warning(recorder, reason):
    call = Replayed(rows, recorder, required=False)
    with pytest.warns(RuntimeWarning, match="no CUDA graph can be captured") as caught:
        check(call, *[batch(4, seed) for seed in range(6)])
    assert len(caught) == 1
    assert reason in str(caught[0].message)
    assert "replay" not in [what for what, _ in recorder.log]


@pytest.mark.parametrize(
    "recorder",
    [FakeRecorder(waits=[True, True]), FakeRecorder(failures=[RuntimeError("not permitted")])],
    ids=["waits", "fails"],
)
def test_what_cannot_be_captured_raises_where_a_graph_is_required(recorder):
    call = Replayed(rows, recorder, required=True)
    call(*batch(4))
    with pytest.raises(RuntimeError, match="cuda_graph=True, but no graph can be captured"):
        call(*batch(4, seed=1))


def test_every_call_runs_the_function_once():
    for settings in ({}, {"waits": [True]}, {"waits": [True] * 2}, {"failures": [TypeError()]}):
        calls = []

        def counted(x, calls=calls):
            calls.append(x[0].item())
            return (x,)

        call = Replayed(counted, FakeRecorder(**settings), required=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(5):
                call(torch.full((2,), float(number)))
        assert calls == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("moment", ["eager run", "recording"])
def test_out_of_memory_lets_the_recording_go_and_smaller_batches_start_anew(moment):
    recorder = FakeRecorder()
    too_large = []

    def hungry(x, key):
        if len(x) in too_large:
            raise torch.OutOfMemoryError
        return rows(x, key)

    call = Replayed(hungry, recorder, required=True)
    if moment == "eager run":
        run(call, batch(8), batch(8))
        too_large.append(16)
        wrong = batch(16)
    else:
        recorder.failures.append(torch.OutOfMemoryError())
        run(call, batch(8))
        wrong = batch(8)
    with pytest.raises(torch.OutOfMemoryError):
        call(*wrong)
    recorder.log.clear()
    check(call, batch(4, 1), batch(4, 2), batch(2, 3))
    assert recorder.log == [("eager", 4), ("record", 4), ("replay", 4), ("replay", 4)]


def test_no_graph_without_a_cuda_device():
    cpu = torch.device("cpu")
    assert replayed(rows, cpu, "auto") is rows
    assert replayed(rows, cpu, False) is rows
    with pytest.raises(ValueError, match="cuda_graph=True needs a CUDA device, got cpu"):
        replayed(rows, cpu, True)
    assert replayed(rows, torch.device("cuda"), False) is rows


def test_no_graph_of_a_network_on_several_devices(monkeypatch):
    monkeypatch.setattr(graphs, "CudaRecorder", lambda device: FakeRecorder())
    cuda = torch.device("cuda")
    network = [SimpleNamespace(device=torch.device("cuda", index)) for index in (1, 0, 1)]
    assert isinstance(replayed(rows, cuda, "auto", network[::2]), Replayed)
    assert isinstance(replayed(rows, cuda, True), Replayed)
    found = "the network lies on cuda:0 and cuda:1"
    with pytest.warns(RuntimeWarning, match=f"{found}.: going on without one"):
        assert replayed(rows, cuda, "auto", network) is rows
    with pytest.raises(ValueError, match=f"cuda_graph=True needs a network on one device: {found}"):
        replayed(rows, cuda, True, network)
    assert replayed(rows, cuda, False, network) is rows


def test_what_is_recorded_can_be_let_go():
    recorder = FakeRecorder()
    call = Replayed(rows, recorder, required=True)
    check(call, batch(8), batch(8))
    let_go(call)
    check(call, batch(4), batch(4))
    assert recorder.log[3:] == [("eager", 4), ("record", 4), ("replay", 4)]
    let_go(rows)  # a plain function holds nothing


@pytest.mark.parametrize("value", ["always", None, 1])
def test_a_bad_setting(value):
    with pytest.raises(ValueError, match="cuda_graph must be 'auto', True or False"):
        require_cuda_graph(value)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_an_eager_run_is_watched_and_leaves_the_mode_as_it_was(monkeypatch, waits, fails):
    log, modes = [], ["error"]
    streams = {
        name: SimpleNamespace(
            device=None, wait_stream=lambda other, name=name: log.append(f"{name} waits")
        )
        for name in ("caller", "side")
    }
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams["side"])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams["caller"])
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def function(x):
        log.append("function")
        assert modes[-1] == "warn"
        assert not torch.is_autocast_cache_enabled()
        if waits:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        if fails:
            raise torch.OutOfMemoryError
        warnings.warn("the model's own", stacklevel=1)
        return (x,)

    recorder, x = CudaRecorder(torch.device("cuda")), torch.zeros(2)
    if fails:
        with pytest.raises(torch.OutOfMemoryError):
            recorder.warm_up(function, x)
    else:
        with pytest.warns(UserWarning, match="the model's own") as caught:
            outputs, waited = recorder.warm_up(function, x)
        assert len(caught) == 1
        assert outputs == (x,)
        assert waited == waits
    assert log == ["side waits", "function", "caller waits"]
    assert modes == ["error", "warn", "error"]
    assert torch.is_autocast_cache_enabled()
