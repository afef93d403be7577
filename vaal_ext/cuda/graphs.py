"""A function of batches, recorded once as a CUDA graph and replayed for the batches that follow."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vaal_ext.checks import warn_caller
from vaal_ext.cuda.recorder import BatchFn, CudaRecorder, Recorder

__all__ = ["Replayed", "let_go", "replayed", "require_cuda_graph"]

_Kind = tuple[int, torch.Size, torch.dtype, torch.device]

_NO_GRAPH = "no CUDA graph can be captured here"


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
