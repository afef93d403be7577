"""The kernels of csrc/cpu/kernels on tensors, through the runner and as a toolchain makes them."""

from __future__ import annotations

import dataclasses
import functools
import platform

import torch
from emulation.build import CSRC, HERE, SETUP, Program, Toolchain, build
from emulation.runner import Input, Output, Runner
from torch import Tensor

INSTRUCTION_SETS = ("portable", "avx2", "avx512")
STORAGE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # of kernels.h


@functools.cache
def _runner(toolchain: Toolchain) -> Runner:
    x86 = (toolchain.machine or platform.machine()) in ("x86_64", "AMD64")
    flags = ["-std=c++20", f"-I{CSRC}"]
    define = ["-DVAAL_X86"] if x86 else []
    objects = {"cpu_kernels.o": (HERE / "cpu_kernels.cpp", [*flags, *define])}
    for name, chosen in SETUP["INSTRUCTION_SETS"].items():
        if name == "portable" or x86:
            options = [*flags, *SETUP["KERNEL_FLAGS"], *chosen, *toolchain.kernel_flags]
            options.append(f"-DVAAL_ISA={name}")
            for kernel in SETUP["CPU_KERNELS"]:
                objects[f"{kernel}.{name}.o"] = (CSRC / f"cpu/kernels/{kernel}.cpp", options)
    program = Program("cpu", objects, toolchain)
    build("cpu.ninja", [program])
    return Runner(*program.command())


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The kernels of one instruction set, as one toolchain makes them."""

    toolchain: Toolchain
    instruction_set: str

    def missing(self) -> str:
        """Why they cannot run here, or "". Compiles them where the toolchain is here."""
        if self.toolchain.missing():
            return self.toolchain.missing()
        has, number = Output((1,), torch.int64), INSTRUCTION_SETS.index(self.instruction_set)
        runs = _runner(self.toolchain).call("cpu/has", [number], [], [has])[0]
        return "" if runs else f"this processor does not run {self.instruction_set}"


class CpuKernels:
    """The table `Kernels` of csrc/cpu/kernels.h for one storage type.

    misalign: elements by which all tensors miss a multiple of 16 bytes.
    """

    def __init__(self, compiled: Compiled, dtype: torch.dtype, misalign: int = 0) -> None:
        self.runner = _runner(compiled.toolchain)
        number = INSTRUCTION_SETS.index(compiled.instruction_set)
        self.prefix = [number, STORAGE.index(dtype)]
        self.dtype = dtype
        self.scalar = torch.float64 if dtype == torch.float64 else torch.float32
        self.misalign = misalign

    def _call(self, name: str, integers: list[int], numbers: list[float], buffers: list):
        return self.runner.call(f"cpu/{name}", [*self.prefix, *integers], numbers, buffers)

    def _in(self, x: Tensor) -> Input:
        return Input(x, self.misalign * x.element_size())

    def _out(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Output:
        dtype = dtype or self.dtype
        return Output(shape, dtype, self.misalign * dtype.itemsize)

    def symmetric_kl(self, p, q, *, smoothing=0.0, symmetric=True, direction=False) -> list[Tensor]:
        """Value and dlogits (direction) or value alone."""
        rows, cols = p.shape
        grad = self._out((rows, cols)) if direction else None
        buffers = [self._in(p), self._in(q), None, self._out((rows,), self.scalar), None, grad]
        integers = [0, rows, cols, int(symmetric), int(direction), 0]
        return self._call("symmetric_kl", integers, [smoothing], buffers)

    def symmetric_kl_backward(self, grad_value, p, q, *, smoothing=0.0, symmetric=True):
        """Gradients by p and q."""
        rows, cols = p.shape
        buffers = [*map(self._in, (p, q, grad_value)), None]
        buffers += [self._out((rows, cols)), self._out((rows, cols))]
        integers = [0, rows, cols, int(symmetric), 0, 1]
        return self._call("symmetric_kl", integers, [smoothing], buffers)

    def posterior_summary(self, logits: Tensor) -> list[Tensor]:
        """Label, entropy, margin."""
        rows, cols = logits.shape
        outputs = [self._out((rows,), d) for d in (torch.int64, self.scalar, self.scalar)]
        return self._call("posterior_summary", [0, rows, cols], [], [self._in(logits), *outputs])

    def fisher_product(self, logits: Tensor, tangents: Tensor) -> Tensor:
        """F·v."""
        rows, cols = logits.shape
        buffers = [self._in(logits), self._in(tangents), self._out((rows, cols))]
        return self._call("fisher_product", [0, rows, cols], [], buffers)[0]

    def fisher_direction(self, logits: Tensor) -> list[Tensor]:
        """Direction and curvature."""
        rows, cols = logits.shape
        outputs = [self._out((rows, cols)), self._out((rows,), self.scalar)]
        return self._call("fisher_direction", [0, rows, cols], [], [self._in(logits), *outputs])

    def norm(self, direction: Tensor) -> float:
        """‖direction‖₂ from the partial norm."""
        part = Output((2,), torch.float64)
        found = self._call("norm_part", [len(direction)], [], [self._in(direction), part])[0]
        return float(found[0] * found[1].sqrt())

    def add_scaled(self, x: Tensor, direction: Tensor, factor: float) -> Tensor:
        """x + factor·direction; a direction in the type of the arithmetic is one of normals."""
        name = "add_scaled" if direction.dtype == self.dtype else "add_scaled_normals"
        buffers = [self._in(x), self._in(direction), self._out(tuple(x.shape))]
        return self._call(name, [len(x)], [factor], buffers)[0]

    def scaled(self, x: Tensor, exponent: int, factor: float) -> Tensor:
        """x·2^−exponent·factor."""
        buffers = [self._in(x), self._out(tuple(x.shape))]
        return self._call("scaled", [len(x), exponent], [factor], buffers)[0]

    def normals(self, seed: int, sample: int, begin: int, count: int) -> Tensor:
        """Elements [begin, begin + count) of the sample's normals."""
        output = self._out((count,), self.scalar)
        return self._call("normals", [seed, sample, begin, count], [], [output])[0]

    def short_normals(self, seed: int, sample_index: Tensor, count: int) -> Tensor:
        """[16, count]: elements [0, count) of 16 samples, which fill whole registers."""
        padded = -(-count // 4) * 4
        buffers = [self._in(sample_index), self._out((16, padded), self.scalar)]
        return self._call("short_normals", [seed, 16, count], [], buffers)[0][:, :count]
