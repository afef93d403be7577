"""The CUDA kernels' source on CPU tensors, compiled by g++ and run under the sanitizers."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path

import pytest
import torch
from emulation.build import CSRC, HERE, SANITIZED, Program, Toolchain, build
from emulation.runner import Input, Output, Runner
from torch import Tensor

from vaal_ext import _C

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

OPS = (
    "symmetric_kl",
    "symmetric_kl_backward",
    "symmetric_kl_direction",
    "perturb",
    "random_perturb",
    "posterior_summary",
    "fisher_product",
    "fisher_direction",
)
FAMILIES = (
    "kl",
    "perturb",
    "random_perturb",
    "posterior_summary",
    "deepfool_step",
    "fisher_product",
    "fisher_direction",
)
PATHS = ("warp", "block", "stream", "split")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TYPES = {  # of csrc/cuda/storage.cuh
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "Half",
    torch.bfloat16: "BFloat16",
}
ORDERS = ("forward", "reverse", "shuffled")


@dataclasses.dataclass
class Plan:
    """LaunchPlan of csrc/cuda/launch_plan.h."""

    path: str
    threads_per_row: int
    rows_per_block: int
    block_threads: int
    items_per_thread: int
    vector_width: int
    blocks: int
    splits: int
    cached_packs: int
    shared_bytes: int

    @classmethod
    def of(cls, op: str, rows: int, cols: int, dtype: torch.dtype, **options) -> Plan:
        """What the launch would be on an H100, or on another device: the options of launch_plan."""
        name = str(dtype).removeprefix("torch.")
        return cls(**_C.launch_plan(op, rows, cols, name, **options))

    def integers(self) -> list[int]:
        """The fields in the order in which kernels.h reads them."""
        return [PATHS.index(self.path), *dataclasses.astuple(self)[1:]]


def program(
    name: str,
    families: tuple[str, ...],
    types: tuple[str, ...],
    sources: Path = CSRC,
    toolchain: Toolchain = SANITIZED,
) -> Program:
    """The kernels of csrc/cuda (or of a changed copy) over the primitives of this folder."""
    objects = {"fibres.o": (HERE / "fibres.cpp", ["-std=c++17"])}
    for family in families:
        for kind in types:
            flags = ["-std=c++17", f"-I{HERE}", f"-I{sources}", f"-DVAAL_TYPE={kind}"]
            objects[f"{name}.{family}.{kind}.o"] = (HERE / f"{family}.cpp", flags)
    return Program(name, objects, toolchain)


@functools.cache
def _all_kernels() -> Runner:
    everything = program("cuda", FAMILIES, tuple(TYPES.values()))
    build("cuda.ninja", [everything])
    return Runner(everything.path)


def fresh_emulation() -> Emulation:
    """All kernels with every option at its default, and torch seeded; compiled once a session."""
    torch.manual_seed(0)
    return Emulation(_all_kernels())


class Emulation:
    """The raw ops, by the kernels of one process. A fault in a kernel raises KernelError.

    order: in which order the threads of a block run, one of ORDERS.
    misalign: elements by which inputs and outputs miss a multiple of 16 bytes.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.order = "forward"
        self.misalign = 0

    def traffic(self) -> tuple[int, int]:
        """Bytes that 16-byte loads and stores have moved since this was last called."""
        loaded, stored = self.runner.call("traffic", [], [], [Output((2,), torch.int64)])[0]
        return int(loaded), int(stored)

    def _call(self, family, op, x, plan, own, numbers, buffers, smoothed=False) -> list[Tensor]:
        rows, cols = len(x), x[0].numel() if len(x) else x.shape[1]
        plan = plan or Plan.of(op, rows, cols, x.dtype, smoothed=smoothed)
        integers = [ORDERS.index(self.order), rows, cols, *plan.integers(), *own]
        return self.runner.call(f"{family}/{TYPES[x.dtype]}", integers, numbers, buffers)

    def _in(self, values: Tensor) -> Input:
        return Input(values, self.misalign * values.element_size())

    def _out(self, x: Tensor) -> Output:
        return Output(tuple(x.shape), x.dtype, self.misalign * x.element_size())

    def _kl(self, op, p, q, smoothing, symmetric, plan, given, value, grad_p, grad_q):
        buffers = [self._in(p), self._in(q), None, value, grad_p, grad_q]
        stride = 0
        if given is not None:
            stride = given.stride(0)
            buffers[2] = Input(given if stride else given[:1])
        own = [OPS.index(op), int(symmetric), stride]
        return self._call("kl", op, p, plan, own, [smoothing], buffers, smoothing > 0)

    def symmetric_kl(self, p, q, smoothing=0.0, symmetric=True, plan=None) -> Tensor:
        value = Output((len(p),), _scalar(p.dtype))
        options = (smoothing, symmetric, plan)
        return self._kl("symmetric_kl", p, q, *options, None, value, None, None)[0]

    def symmetric_kl_direction(self, p, q, smoothing=0.0, symmetric=True, plan=None):
        value = Output((len(p),), _scalar(p.dtype))
        options = (smoothing, symmetric, plan)
        return self._kl("symmetric_kl_direction", p, q, *options, None, value, None, self._out(p))

    def symmetric_kl_backward(
        self, grad_value, p, q, smoothing=0.0, symmetric=True, need=(True, True), plan=None
    ):
        grads = [self._out(p) if needed else None for needed in need]
        options = (smoothing, symmetric, plan)
        found = iter(self._kl("symmetric_kl_backward", p, q, *options, grad_value, None, *grads))
        return tuple(next(found) if needed else None for needed in need)

    def perturb(self, x, direction, radius, plan=None):
        norm = Output((len(x),), _scalar(x.dtype))
        buffers = [self._in(x), self._in(direction), self._out(x), norm]
        return self._call("perturb", "perturb", x, plan, [], [radius], buffers)

    def random_perturb(self, x, radius, seed, sample_index, plan=None) -> Tensor:
        buffers = [self._in(x), Input(sample_index), self._out(x)]
        op = "random_perturb"
        return self._call(op, op, x, plan, [seed], [radius], buffers)[0]

    def posterior_summary(self, logits, plan=None):
        rows, scalar = (len(logits),), _scalar(logits.dtype)
        outputs = [Output(rows, torch.int64), Output(rows, scalar), Output(rows, scalar)]
        op = "posterior_summary"
        return self._call(op, op, logits, plan, [], [], [self._in(logits), *outputs])

    def deepfool_step(self, logits, gradients, reference, candidates, plan=None):
        """gradients [B, K, D], of which [K, B, D] may be what lies in memory."""
        order = (0, 1) if gradients.is_contiguous() else (1, 0)
        lying = gradients.movedim(order, (0, 1))
        shape = (len(logits), gradients.shape[2])
        outputs = [
            Output(shape[:1], torch.int64, checked=False),
            Output(shape[:1], _scalar(logits.dtype)),
            self._out(torch.empty(shape, dtype=logits.dtype, device="meta")),
        ]
        given = [self._in(logits), self._in(lying), Input(reference), Input(candidates)]
        own = [gradients.shape[1], logits.shape[1], *gradients.stride()[:2]]
        op, rows = "deepfool_step", gradients.reshape(-1, gradients.shape[2])
        return self._call(op, op, rows, plan, own, [], [*given, *outputs])

    def fisher_product(self, logits, tangents, plan=None) -> Tensor:
        buffers = [self._in(logits), self._in(tangents), self._out(logits)]
        op = "fisher_product"
        return self._call(op, op, logits, plan, [], [], buffers)[0]

    def fisher_direction(self, logits, plan=None):
        curvature = Output((len(logits),), _scalar(logits.dtype))
        buffers = [self._in(logits), self._out(logits), curvature]
        op = "fisher_direction"
        return self._call(op, op, logits, plan, [], [], buffers)


def _scalar(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
