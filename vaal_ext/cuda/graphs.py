"""A function of batches, recorded once as a CUDA graph and replayed for the batches that follow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from vaal_ext.checks import warn_caller

__all__ = ["CudaRecorder", "Recorder", "Replayed", "let_go", "replayed", "require_cuda_graph"]

BatchFn = Callable[..., tuple[Tensor, ...]]
_Kind = tuple[int, torch.Size, torch.dtype, torch.device]

_NO_GRAPH = "no CUDA graph can be captured here"

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


def require_cuda_graph(cuda_graph: Any) -> None:
    """ValueError unless cuda_graph is "auto", True or False."""
    if cuda_graph != "auto" and not isinstance(cuda_graph, bool):
        raise ValueError(f"cuda_graph must be 'auto', True or False, got {cuda_graph!r}")


def replayed(
    function: BatchFn, device: torch.device, cuda_graph: bool | str, read: Iterable[Tensor] = ()
) -> BatchFn:
    """`function` for batches on `device`: as a CUDA graph where that is asked for, else as it is.

    Args:
        function: see :class:`Replayed`.
        cuda_graph: "auto" for a graph on every CUDA device, given up with a warning if the function
            cannot be captured; True to raise an error instead; False for none.
        read: what the function reads beside its inputs: the tensors of a network. Where they lie on
            several devices no graph can be captured.

    Raises:
        ValueError: cuda_graph is True, and the device is no CUDA device, or the network lies on
            several.
    """
    if cuda_graph is True and device.type != "cuda":
        raise ValueError(f"cuda_graph=True needs a CUDA device, got {device}")
    if device.type != "cuda" or cuda_graph is False:
        return function
    devices = sorted({str(tensor.device) for tensor in read})
    if len(devices) > 1:
        found = f"the network lies on {' and '.join(devices)}"
        if cuda_graph is True:
            raise ValueError(f"cuda_graph=True needs a network on one device: {found}")
        warn_caller(f"{_NO_GRAPH} ({found}): going on without one")
        return function
    return Replayed(function, CudaRecorder(device), required=cuda_graph is True)


def let_go(function: BatchFn) -> None:
    """Frees the memory of what a function from :func:`replayed` has recorded, if it has; its next
    batches begin anew."""
    if isinstance(function, Replayed):
        function.forget()


class Recorder(Protocol):
    """What :class:`Replayed` needs of a device."""

    def warm_up(self, function: BatchFn, *inputs: Tensor) -> tuple[tuple[Tensor, ...], bool]:
        """The function's results, and whether the host waited for the device on the way.

        For the function and its inputs see :class:`Replayed`.
        """

    def record(
        self, function: BatchFn, *inputs: Tensor
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """A call that runs the function once more on these very tensors, and what it writes to.

        For the function and its inputs see :class:`Replayed`. Where this raises the device is in
        order again, or the error says that it is not.
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


class Replayed:
    """Runs a function once per call: eagerly at first, then as a recording of itself.

    The first batch runs eagerly, which is the warm-up that a capture needs. The next one of the
    same shapes is recorded and replayed from static input buffers, and so are all later ones that
    are not larger: a smaller batch is filled up with samples of an earlier one, whose rows are
    dropped. Larger or otherwise different batches run eagerly, until two in a row are alike.

    A function that waits for the device (`.item()`, a branch on a tensor's value, work on the CPU)
    cannot be captured. It is found out by watching an eager run, because torch leaves the random
    generator and the allocator in a bad state when a capture fails half-way.

    The function's Python code does not run in a replay: it must launch the same work every time.
    Tensors other than the inputs (a model's weights) are read where they lay at the recording, so
    changes in place are seen and replaced tensors are not: make a new Replayed then.

    Args:
        function: tensors [B, ...] of any dtype in; a tuple of tensors [B, ...] out, whose row i
            depends on row i of the inputs alone. It may have other results (one number for the
            batch, updated weights) if every batch has the same B.
        recorder: of the device that the inputs lie on.
        required: raise where the function cannot be captured, instead of going on eagerly.
    """

    def __init__(self, function: BatchFn, recorder: Recorder, *, required: bool) -> None:
        self._function = function
        self._recorder = recorder
        self._required = required
        self._eager = False
        self._ready: list[_Kind] | None = None  # ran before without a wait: record it next
        self._waited: list[_Kind] | None = None  # ran before and waited, perhaps only at first
        self._recording: _Recording | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's results; they are overwritten by the next call.

        Raises:
            RuntimeError: the function cannot be captured, and that is required.
            torch.OutOfMemoryError: the recording has been let go; smaller batches start anew.
        """
        if self._recording is not None and self._recording.takes(inputs):
            self._ready = self._waited = None
            return self._recording(*inputs)
        if self._eager:
            return self._function(*inputs)
        try:
            return self._run_or_record(inputs)
        except torch.OutOfMemoryError:
            self.forget()
            raise

    def _run_or_record(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        kinds = [_kind(tensor) for tensor in inputs]
        if kinds == self._ready:
            self._record(inputs)
            return self(*inputs)
        outputs, waited = self._recorder.warm_up(self._function, *inputs)
        if waited and kinds == self._waited:
            self._give_up("the host waits for the device on the way", None)
        self._ready, self._waited = (None, kinds) if waited else (kinds, None)
        return outputs

    def forget(self) -> None:
        """Frees the recording and its memory; the next batches are recorded anew."""
        self._recording = self._ready = self._waited = None

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self.forget()  # first, so that the old recording's memory can serve the new one
        try:
            self._recording = _Recording(self._function, self._recorder, inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the same call went well a moment ago, outside a capture
            self._give_up(str(error).partition("\n")[0] or type(error).__name__, error)

    def _give_up(self, reason: str, cause: Exception | None) -> None:
        if self._required:
            raise RuntimeError(
                f"cuda_graph=True, but no graph can be captured: {reason}"
            ) from cause
        self._eager = True
        warnings.warn(
            f"{_NO_GRAPH} ({reason}): going on without one",
            RuntimeWarning,
            stacklevel=3,
        )


class _Recording:
    """One recorded call with its input buffers."""

    def __init__(self, function: BatchFn, recorder: Recorder, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [torch.empty_like(tensor).copy_(tensor) for tensor in inputs]
        self._replay, self._outputs = recorder.record(function, *self._inputs)

    def takes(self, inputs: tuple[Tensor, ...]) -> bool:
        return all(
            _kind(tensor)[1:] == _kind(buffer)[1:] and len(tensor) <= len(buffer)
            for tensor, buffer in zip(inputs, self._inputs, strict=True)
        )

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        rows = len(inputs[0])
        for tensor, buffer in zip(inputs, self._inputs, strict=True):
            buffer[:rows].copy_(tensor)
        self._replay()
        if rows == len(self._inputs[0]):
            return self._outputs
        return tuple(output[:rows] for output in self._outputs)


def _kind(tensor: Tensor) -> _Kind:
    return len(tensor), tensor.shape[1:], tensor.dtype, tensor.device
