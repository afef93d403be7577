"""What a multiprocessor of each architecture holds, and how fast one GPU of each is.

The limits are those of "Technical Specifications per Compute Capability" in the CUDA C++
Programming Guide (threads, shared memory; registers are 65,536 everywhere) and of cuda_occupancy.h
in the CUDA toolkit (blocks, and the grains in which registers and shared memory are given out).
Lanes that a unit serves a cycle are those of the guide's "Throughput of Native Arithmetic
Instructions".
"""

from __future__ import annotations

import dataclasses

WARP = 32
ISSUES = 4  # warps that a multiprocessor serves a cycle, each with one instruction
REGISTERS = 65536
REGISTER_GRAIN = 256  # of a warp
RESERVED_SHARED = 1024  # of each block, from 8.0 on
# A copy reaches about this share of the published rate: 3.0 of 3.35 TB/s on an H100.
COPY = 3.0 / 3.35
# Bytes that a multiprocessor must have asked for to keep the memory busy: 40 KB on an H100, at
# 3.0 TB/s, and elsewhere as much in the same time. An estimate: no GPU has been asked.
SECONDS_OF_FLIGHT = 40 * 1024 * 132 / 3.0e12


@dataclasses.dataclass(frozen=True)
class Gpu:
    """name: of the device whose multiprocessors, clock (Hz) and memory (bytes/s) these are."""

    name: str
    multiprocessors: int
    clock: float
    published_rate: float
    threads: int  # that a multiprocessor holds
    blocks: int
    shared: int  # bytes
    shared_grain: int
    double_lanes: int  # float64 operations a cycle and multiprocessor
    special_lanes: int = 16  # exponentials, reciprocals, square roots, sines
    parameters: int = 0x160  # where a kernel's parameters begin in constant bank 0
    shape: tuple[int, int] = (0x0, 0xC)  # where blockDim and gridDim stand there

    @property
    def copy_rate(self) -> float:
        return self.published_rate * COPY

    @property
    def flight(self) -> float:
        """Bytes in flight that a multiprocessor needs."""
        return SECONDS_OF_FLIGHT * self.copy_rate / self.multiprocessors

    @property
    def shared_of_block(self) -> int:
        """The most that one block may ask for."""
        return self.shared - self.reserved

    @property
    def reserved(self) -> int:
        return RESERVED_SHARED if self.shared_grain == 128 else 0

    def resident(self, threads: int, registers: int, shared: int) -> int:
        """Blocks of so many threads, registers a thread and bytes that fit on a multiprocessor."""
        warps = -(-threads // WARP)
        grains = -(-registers * WARP // REGISTER_GRAIN) * REGISTER_GRAIN
        by_registers = ISSUES * (REGISTERS // ISSUES // grains) // warps
        held = shared + self.reserved
        held = -(-held // self.shared_grain) * self.shared_grain
        by_shared = self.shared // held if held else self.blocks
        return min(self.blocks, self.threads // (warps * WARP), by_registers, by_shared)


KB = 1024
LATER = (0x360, 0x370)
# Multiprocessors, boost clocks and rates: T4 and A10 by sysrqmts.com, A100 SXM 80 GB and B200 by
# hmc-tech.com (nvidia-a100-sxm-vs-nvidia-b200), RTX 5090 by Linux Format of May 2025; the clock of
# the H100 is what it holds under load.
GPUS = {
    "sm_75": Gpu("T4", 40, 1.590e9, 0.320e12, 1024, 16, 64 * KB, 256, 2),
    "sm_80": Gpu("A100", 108, 1.410e9, 2.039e12, 2048, 32, 164 * KB, 128, 32),
    "sm_86": Gpu("A10", 72, 1.695e9, 0.600e12, 1536, 16, 100 * KB, 128, 2),
    "sm_90": Gpu("H100", 132, 1.755e9, 3.35e12, 2048, 32, 228 * KB, 128, 64, parameters=0x210),
    "sm_100": Gpu(
        "B200", 148, 1.98e9, 7.7e12, 2048, 32, 228 * KB, 128, 64, parameters=0x380, shape=LATER
    ),
    "sm_120": Gpu(
        "RTX 5090",
        170,
        2.407e9,
        1.792e12,
        1536,
        24,
        100 * KB,
        128,
        2,
        parameters=0x380,
        shape=LATER,
    ),
}
