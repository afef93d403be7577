"""How a function of batches is recorded as a CUDA graph, and whether it can be."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["BatchFn", "CudaRecorder", "Recorder"]

BatchFn = Callable[..., tuple[Tensor, ...]]

# What torch says, as a warning, in its mode that watches for waits of the host.
_WAITED = "called a synchronizing CUDA operation"
_WATCHING = "Synchronization debug mode is a prototype feature"
# What waits without a word of that mode: the last calls in Python on their ways. (A torch without
# CUDA lacks some. What torch.Event does is not Python and not seen: there the capture fails.)
_SILENT_WAITS = (
    (torch._C, "_cuda_synchronize"),  # torch.cuda.synchronize
    (torch._C, "_accelerator_synchronizeDevice"),  # torch.accelerator.synchronize
    (torch.cuda.Event, "synchronize"),
    (torch.cuda.Stream, "synchronize"),
)


class Recorder(Protocol):
    """What :class:`~vaal_ext.cuda.graphs.Replayed` needs of a device."""

    def warm_up(self, function: BatchFn, *inputs: Tensor) -> tuple[tuple[Tensor, ...], bool]:
        """The function's results, and whether the host waited for the device on the way.

        For the function and its inputs see :class:`~vaal_ext.cuda.graphs.Replayed`.
        """

    def record(
        self, function: BatchFn, *inputs: Tensor
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """A call that runs the function once more on these very tensors, and what it writes to.

        For the function and its inputs see :class:`~vaal_ext.cuda.graphs.Replayed`. Where this
        raises the device is in order again, or the error says that it is not.
        """


class CudaRecorder:
    """Warms up and captures on a stream of its own, as torch.cuda.graph demands.

    Every recording has a memory pool of its own, which goes when the recording goes.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, function: BatchFn, *inputs: Tensor) -> tuple[tuple[Tensor, ...], bool]:
        """See :class:`Recorder`. The host's waits are only watched, they do what they always do."""
        caller = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(caller)
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught, _silent_waits() as silent:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with torch.cuda.stream(self._stream), _no_cached_casts():
                    outputs = function(*inputs)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
                caller.wait_stream(self._stream)
        waits = [warning for warning in caught if _WAITED in str(warning.message)]
        for other in caught:
            # Watching is itself warned of, once a process.
            if other not in waits and not str(other.message).startswith(_WATCHING):
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        return outputs, bool(waits or silent)

    def record(
        self, function: BatchFn, *inputs: Tensor
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """See :class:`Recorder`. The captured kernels run when the call is made, not before."""
        try:
            return self._captured(function, *inputs)
        except torch.OutOfMemoryError:
            self._put_in_order()
            raise
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise RuntimeError(f"{reason}; {self._put_in_order()}") from error

    def _captured(
        self, function: BatchFn, *inputs: Tensor
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        graph = torch.cuda.CUDAGraph()
        # The outer stream context holds also where the end of a failed capture raises, which leaves
        # torch's own on the capturing stream. Threads that decode and pin the next batches may go
        # on meanwhile (thread_local).
        with (
            torch.cuda.stream(self._stream),
            _no_cached_casts(),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            outputs = function(*inputs)
        return graph.replay, outputs

    def _put_in_order(self) -> str:
        """Makes a capture that goes well; says how it went.

        A capture that fails half-way leaves torch's random generator believing that it is being
        captured, so that the next dropout on the device would raise. The end of the next capture
        takes that back.
        """
        try:
            self._captured(lambda: (torch.zeros(1, device=self._stream.device),))
        except Exception as error:
            reason = str(error).partition("\n")[0]
            return f"random numbers on {self._stream.device} may fail from now on ({reason})"
        return "another capture has put the device's random generator in order"


@contextmanager
def _silent_waits() -> Iterator[list[str]]:
    """Lists the waits of :data:`_SILENT_WAITS` in the block, in every thread of the process."""
    found: list[str] = []
    with ExitStack() as stack:
        for owner, name in _SILENT_WAITS:
            if hasattr(owner, name):
                wait = getattr(owner, name)
                stack.callback(setattr, owner, name, wait)
                setattr(owner, name, _listed(wait, name, found))
        yield found


def _listed(wait: Callable[..., Any], name: str, found: list[str]) -> Callable[..., Any]:
    def listed(*args: Any) -> Any:
        found.append(name)
        return wait(*args)

    return listed


def _no_cached_casts() -> torch.autocast:
    """Autocast as it is, less its cache of weights, whose memory a graph would not keep alive.

    The warm-up runs like that too: compiled code looks whether its surroundings have changed.
    """
    return torch.autocast("cuda", enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False)
