"""Copies between the host and a device that the host does not wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["device_batches", "to_device", "to_host"]

T = TypeVar("T")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor, of any shape and dtype, on `device`.

    From the host to CUDA by way of pinned memory, without a wait.
    """
    if device.type == "cuda" and tensor.is_cpu:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Starts a copy of a tensor, of any shape and dtype, to the host.

    The returned call gives it, having waited for nothing later.
    """
    if not tensor.is_cuda:
        return tensor.cpu
    copy = tensor.to("cpu", non_blocking=True)  # into pinned memory
    copied = torch.cuda.current_stream(tensor.device).record_event()

    def wait() -> Tensor:
        copied.synchronize()
        return copy

    return wait


def device_batches(
    batches: Iterable[tuple[Tensor, T]], device: torch.device
) -> Iterator[tuple[Tensor, T]]:
    """Yields every (x, label) with x, of any shape and dtype, on `device`; a label may be anything.

    On CUDA the next x is read, pinned and copied on a stream of its own while the present one is
    computed with. The caller must queue what it does with x on the current stream before it asks
    for the next one, and must not use x afterwards. An x that does not fit into the device's memory
    beside the others is yielded as it came, on the host. Elsewhere this is a plain loop.
    """
    if device.type != "cuda":
        for x, label in batches:
            yield x.to(device), label
        return
    copies = torch.cuda.Stream(device)
    # The memory of a copied x belongs to the stream of the copies, which may write to it again once
    # nobody holds it. So an x is held here until that stream has been told to wait for its use.
    in_use: deque[tuple[Tensor, torch.cuda.Event]] = deque()
    waiting = None
    try:
        for batch in chain(batches, [None]):
            if len(in_use) > 1:
                copies.wait_event(in_use.popleft()[1])
            ahead = None if batch is None else (*_copied(batch[0], device, copies), batch[1])
            if waiting is not None:
                x, copied, label = waiting
                if copied is not None:
                    torch.cuda.current_stream(device).wait_event(copied)
                yield x, label
                in_use.append((x, torch.cuda.current_stream(device).record_event()))
            waiting = ahead
    finally:
        copies.wait_stream(torch.cuda.current_stream(device))


def _copied(
    x: Tensor, device: torch.device, copies: torch.cuda.Stream
) -> tuple[Tensor, torch.cuda.Event | None]:
    """x on the device with the event of its copy; x as it came, and None, where it does not fit."""
    if not x.is_cpu:
        return x.to(device), None
    try:
        with torch.cuda.stream(copies):
            return to_device(x, device), copies.record_event()
    except torch.OutOfMemoryError:
        return x, None
