"""What CudaRecorder asks of torch.cuda, and in which order, on a torch.cuda that keeps account."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from vaal_ext.cuda.graphs import Replayed
from vaal_ext.cuda.recorder import CudaRecorder


class Cuda:
    """One stream beside the caller's, and captures.

    Attributes:
        ends: for each capture in turn the error that its end raises, or None.
        captures: what ran in each capture, as its functions tell by `ran`.
    """

    def __init__(self, monkeypatch):
        self.stream = SimpleNamespace(device=torch.device("cpu"), wait_stream=lambda other: None)
        self.current, self.ends, self.captures, self.replays = "caller", [], [], 0
        fakes = {"Stream": lambda device: self.stream, "stream": self.on_stream}
        fakes |= {"CUDAGraph": self.make_graph, "graph": self.capture}
        fakes |= {"current_stream": lambda device: self.stream}
        fakes |= {"get_sync_debug_mode": lambda: 0, "set_sync_debug_mode": lambda mode: None}
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def make_graph(self):
        return SimpleNamespace(replay=self.replay)

    def replay(self):
        self.replays += 1

    @contextmanager
    def on_stream(self, stream):
        assert stream is self.stream
        before, self.current = self.current, "its own"
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def capture(self, graph, *, stream, capture_error_mode):
        assert stream is self.stream
        assert capture_error_mode == "thread_local"
        self.captures.append([])
        end = self.ends.pop(0) if self.ends else None
        try:
            yield
        finally:
            if end is not None:
                # As torch's context does it: the stream that it made current stays so.
                self.current = "capturing"
                raise end

    def ran(self, what):
        assert self.current == "its own"
        assert not torch.is_autocast_cache_enabled()
        self.captures[-1].append(what)


@pytest.fixture
def cuda(monkeypatch):
    return Cuda(monkeypatch)


def recorder():
    return CudaRecorder(torch.device("cuda"))


def test_a_capture_runs_the_function_once_on_the_tensors_given(cuda):
    x = torch.zeros(2)

    def function(given):
        assert given is x
        cuda.ran("function")
        return (given,)

    replay, outputs = recorder().record(function, x)
    assert cuda.captures == [["function"]]
    assert outputs[0] is x
    assert cuda.replays == 0
    replay()
    assert cuda.replays == 1
    assert cuda.captures == [["function"]]
    assert cuda.current == "caller"
    assert torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("where", ["function", "end", "both"])
def test_after_a_failed_capture_another_one_puts_the_generator_in_order(cuda, where):
    reason = RuntimeError("not permitted\nwhen capturing")

    def function(x):
        cuda.ran("function")
        if where != "end":
            raise ValueError("not permitted") from None
        return (x,)

    cuda.ends = [reason if where != "function" else None]
    with pytest.raises(RuntimeError, match="not permitted; another capture has put"):
        recorder().record(function, torch.zeros(2))
    assert len(cuda.captures) == 2
    assert cuda.captures[0] == ["function"]
    assert cuda.current == "caller"


def test_where_that_capture_fails_too_the_error_says_so(cuda):
    cuda.ends = [RuntimeError("not permitted"), RuntimeError("nor this")]
    expected = r"not permitted; random numbers on cpu may fail from now on \(nor this\)"
    with pytest.raises(RuntimeError, match=expected):
        recorder().record(lambda x: (x,), torch.zeros(2))


def test_out_of_memory_in_a_capture_stays_what_it_is(cuda):
    def function(x):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        recorder().record(function, torch.zeros(2))
    assert len(cuda.captures) == 2


def test_a_failed_capture_is_told_in_the_warning_and_batches_go_on(cuda):
    cuda.ends = [RuntimeError("not permitted\nwhen capturing")]
    call, x = Replayed(lambda x: (x + 1,), recorder(), required=False), torch.zeros(2)
    call(x)
    with pytest.warns(RuntimeWarning, match="put the device's random generator in order"):
        (result,) = call(x)
    assert torch.equal(result, x + 1)
    assert torch.equal(call(x)[0], x + 1)
    assert len(cuda.captures) == 2


# (The recorder's own stream is a fake, so that the class is asked for by its module.)
SILENT_WAITS = {
    "torch.cuda.synchronize": (torch._C, "_cuda_synchronize"),
    "torch.accelerator.synchronize": (torch._C, "_accelerator_synchronizeDevice"),
    "event.synchronize": (torch.cuda.streams.Event, "synchronize"),
    "stream.synchronize": (torch.cuda.streams.Stream, "synchronize"),
}


@pytest.mark.parametrize("wait", SILENT_WAITS)
def test_waits_that_torch_does_not_warn_of_are_seen(cuda, monkeypatch, wait):
    waited = []
    for name, (owner, attribute) in SILENT_WAITS.items():
        # A torch without CUDA lacks some of them.
        monkeypatch.setattr(owner, attribute, partial(waited.append, name), raising=False)
    before = [getattr(*place) for place in SILENT_WAITS.values()]

    def function(x):
        getattr(*SILENT_WAITS[wait])()
        return (x,)

    _, seen = recorder().warm_up(function, torch.zeros(2))
    assert seen
    assert waited == [wait]
    assert [getattr(*place) for place in SILENT_WAITS.values()] == before
    _, seen = recorder().warm_up(lambda x: (x,), torch.zeros(2))
    assert not seen


def test_the_waits_that_are_watched_are_on_the_ways_of_torch():
    """torch.cuda.synchronize and its kin are Python that ends in what is watched."""
    assert "_cuda_synchronize" in torch.cuda.synchronize.__code__.co_names
    assert "_accelerator_synchronizeDevice" in torch.accelerator.synchronize.__code__.co_names
    for kind in (torch.cuda.Event, torch.cuda.Stream):
        assert "synchronize" in vars(kind)
