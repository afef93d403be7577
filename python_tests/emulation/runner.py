"""Calls kernels in a process of their own, which may run under the sanitizers (see runner.h)."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

MAX_BUFFERS, INTEGERS, NUMBERS = 8, 24, 2
HEADER = struct.Struct(f"32s{INTEGERS}q{NUMBERS}d{3 * MAX_BUFFERS}q")
LENGTH = struct.Struct("q")
# Leaks are those of a process that is killed; the fibres' stacks are none that ASan knows.
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:exitcode=97",
    "UBSAN_OPTIONS": "print_stacktrace=0:exitcode=97",
}


class KernelError(RuntimeError):
    """A kernel did what is undefined on a GPU, or in C++."""


class Input:
    """A tensor that a kernel reads, `misalign` bytes past a multiple of 16."""

    def __init__(self, tensor: Tensor, misalign: int = 0) -> None:
        flat = tensor.detach().clone(memory_format=torch.contiguous_format).view(-1)
        self.content = flat.view(torch.uint8).numpy().tobytes()
        self.spec = (len(self.content), misalign, 0)


class Output:
    """A tensor that a kernel writes. Before that, all its bits are 1.

    `checked`: an element that is still -1 (or that NaN) was not written; False where -1 may result.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        misalign: int = 0,
        *,
        checked: bool = True,
    ) -> None:
        self.shape, self.dtype, self.checked = shape, dtype, checked
        self.spec = (torch.empty(shape, dtype=dtype, device="meta").nbytes, misalign, 1)

    def written(self, content: bytes) -> Tensor:
        """The tensor from the process, after checking (if `checked`) that all of it was written."""
        if not content:
            return torch.empty(self.shape, dtype=self.dtype)
        words = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if self.checked and bool((words.view(-1, self.dtype.itemsize) == 0xFF).all(1).any()):
            raise KernelError("a kernel left a part of its output unwritten")
        return words.view(self.dtype).view(self.shape)


class Runner:
    """The process of one program of build.py, by its command; it starts with the first call."""

    def __init__(self, *command: str | Path) -> None:
        self.command = command
        self.process: subprocess.Popen | None = None

    def call(
        self, name: str, integers: list[int], numbers: list[float], buffers: list
    ) -> list[Tensor]:
        """Runs the kernel `name` on Inputs, Outputs and Nones; returns what the Outputs hold.

        Raises KernelError with what the emulation or a sanitizer found.
        """
        if self.process is None or self.process.poll() is not None:
            self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                env=ENVIRONMENT,
            )
        specs = [buffer.spec if buffer else (-1, 0, 0) for buffer in buffers]
        specs += [(-1, 0, 0)] * (MAX_BUFFERS - len(specs))
        integers = integers + [0] * (INTEGERS - len(integers))
        numbers = numbers + [0.0] * (NUMBERS - len(numbers))
        header = HEADER.pack(name.encode(), *integers, *numbers, *(n for s in specs for n in s))
        inputs = b"".join(buffer.content for buffer in buffers if isinstance(buffer, Input))
        try:
            self.process.stdin.write(header + inputs)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise KernelError(self._report()) from None
        message = self._receive(*LENGTH.unpack(self._receive(LENGTH.size))).decode()
        if message:
            raise KernelError(message)
        outputs = [buffer for buffer in buffers if isinstance(buffer, Output)]
        contents = [self._receive(output.spec[0]) for output in outputs]
        return [output.written(content) for output, content in zip(outputs, contents, strict=True)]

    def _receive(self, size: int) -> bytes:
        content = self.process.stdout.read(size)
        if len(content) < size:
            raise KernelError(self._report())
        return content

    def _report(self) -> str:
        """The lines of a sanitizer's report that say what happened where."""
        status = self.process.wait()
        self.errors.seek(0)
        report = self.errors.read()
        lines = re.findall(r"^.*(?:runtime error:|ERROR: AddressSanitizer:).*$", report, re.M)
        lines += re.findall(r"^(?:READ|WRITE) of size.*$", report, re.M)[:1]
        lines += re.findall(r"^\s*#\d+.*$", report, re.M)[:6]
        return "\n".join(lines) or f"the process ended with status {status}: {report[-2000:]}"
