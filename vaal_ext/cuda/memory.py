"""How much memory there is, and how much a piece of work takes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

__all__ = ["MemoryGrowth", "available_memory", "read_proc"]


def available_memory(device: torch.device) -> int:
    """Bytes that can be had now: of the GPU, or of the machine without swapping (Linux).

    Of the GPU it is what is free and what torch's allocator holds unused, some of which may lie in
    pieces too small to serve, or in the pools of graphs.

    Raises:
        ValueError: the CPU's, where there is no /proc.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return read_proc("/proc/meminfo", "MemAvailable")


class MemoryGrowth:
    """By how much memory has grown at its peak since this object was made.

    On CUDA it is what torch has allocated, on the CPU what the process holds. Where the kernel does
    not let the process's peak be reset, an older peak may count: too much, never too little.

    Raises:
        ValueError: on the CPU where there is no /proc.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
            self._start = read_proc("/proc/self/status", "VmRSS")

    def peak(self) -> int:
        """Bytes, 0 or above."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._start
        return max(0, read_proc("/proc/self/status", "VmHWM") - self._start)


def read_proc(file: str, name: str) -> int:
    """The entry `name` of a file of /proc that counts in kB, in bytes.

    Raises:
        ValueError: there is no such file or entry, as on systems other than Linux.
    """
    try:
        lines = Path(file).read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        raise ValueError(
            f"memory on the CPU is read from {file}, whose entry {name} this system lacks: give "
            "the batch size as a number"
        ) from None
