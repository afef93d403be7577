"""The order of copies and computation between two streams, on streams that only keep account."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from vaal_ext.cuda import transfers
from vaal_ext.cuda.transfers import device_batches, to_device, to_host

CPU = torch.device("cpu")


class Stream:
    """Knows which operations are over before whatever is queued on it next begins."""

    def __init__(self):
        self.before = set()

    def queue(self, *operation):
        self.before.add(operation)

    def record_event(self):
        return frozenset(self.before)

    def wait_event(self, event):
        self.before |= event

    def wait_stream(self, stream):
        self.before |= stream.before


class Device:
    """Two streams, and an allocator that gives the copies the memory of whatever nobody holds."""

    def __init__(self, too_large=()):
        self.copies, self.compute = Stream(), Stream()
        self.living, self.too_large = {}, too_large

    def copy(self, x, device):
        number = int(x[0])
        if number in self.too_large:
            raise torch.OutOfMemoryError
        for other, reference in self.living.items():
            # Its memory may be written by this copy: only once its use is over.
            assert reference() is not None or ("use", other) in self.copies.before
        # The batch before the last is being computed with: this copy runs beside it.
        assert ("use", number - 2) not in self.copies.before
        copy = x.clone()
        self.copies.queue("copy", number)
        self.living[number] = weakref.ref(copy)
        return copy


@pytest.fixture
def device(monkeypatch):
    device = Device()
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: device.copies)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: device.compute)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(transfers, "to_device", device.copy)
    return device


def pool(count):
    for number in range(count):
        yield torch.full((2,), float(number)), number


def consume(device, batches):
    seen = []
    for x, number in batches:
        assert ("copy", number) in device.compute.before or number in device.too_large
        device.compute.queue("use", number)
        seen.append((number, x[0].item()))
    return seen


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_copies_run_ahead_and_never_into_memory_in_use(device, count):
    seen = consume(device, device_batches(pool(count), torch.device("cuda")))
    assert seen == [(number, float(number)) for number in range(count)]
    assert sum(reference() is not None for reference in device.living.values()) == 0
    assert device.compute.before <= device.copies.before


def test_at_most_three_batches_are_held(device):
    held = []
    for _, number in device_batches(pool(9), torch.device("cuda")):
        device.compute.queue("use", number)
        held.append(sum(reference() is not None for reference in device.living.values()))
    assert max(held) == 3


def test_a_batch_that_does_not_fit_stays_on_the_host(device):
    device.too_large = (2, 5)
    given = list(pool(7))
    for x, number in device_batches(iter(given), torch.device("cuda")):
        assert (x is given[number][0]) == (number in device.too_large)
        device.compute.queue("use", number)


def test_an_abandoned_loop_leaves_its_memory_to_later_copies(device):
    batches = device_batches(pool(5), torch.device("cuda"))
    for _, number in batches:
        device.compute.queue("use", number)
        if number == 3:
            break
    batches.close()
    assert ("use", 3) in device.copies.before


class Hosted:
    """A tensor on the host that tells how it is copied."""

    is_cpu, is_cuda = True, False

    def __init__(self, log):
        self.log = log

    def pin_memory(self):
        self.log.append("pinned")
        return self

    def to(self, device, **how):
        self.log.append((str(device), how))
        return self


def test_a_tensor_goes_to_the_device_by_way_of_pinned_memory_and_nobody_waits():
    log = []
    to_device(Hosted(log), torch.device("cuda:1"))
    assert log == ["pinned", ("cuda:1", {"non_blocking": True})]
    log.clear()
    to_device(Hosted(log), CPU)
    assert log == [("cpu", {})]


def test_a_result_comes_to_the_host_when_it_is_asked_for(monkeypatch):
    log = []

    class OnDevice(Hosted):
        is_cpu, is_cuda, device = False, True, torch.device("cuda:1")

    class Event:
        def synchronize(self):
            log.append("waited")

    def record_event():
        log.append("recorded")
        return Event()

    stream = SimpleNamespace(record_event=record_event)
    monkeypatch.setattr(torch.cuda, "current_stream", {OnDevice.device: stream}.__getitem__)
    tensor = OnDevice(log)
    arrived = to_host(tensor)
    assert log == [("cpu", {"non_blocking": True}), "recorded"]
    assert arrived() is tensor
    assert log[2:] == ["waited"]


def test_on_the_cpu_batches_come_one_by_one_as_they_are():
    x = torch.zeros(3)
    read = []

    def batches():
        for number in range(3):
            read.append(number)
            yield x, number

    for count, (same, number) in enumerate(device_batches(batches(), CPU), start=1):
        assert same is x
        assert read == list(range(count))
        assert number == count - 1
    assert to_device(x, CPU) is x
    assert to_host(x)() is x
