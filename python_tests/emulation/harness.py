"""Compiles the CUDA kernels for the CPU and calls them on torch tensors (see fibres.h)."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"

OPS = (
    "symmetric_kl",
    "symmetric_kl_backward",
    "symmetric_kl_direction",
    "perturb",
    "random_perturb",
    "posterior_summary",
)
PATHS = ("warp", "block", "stream", "split")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
ORDERS = ("forward", "reverse", "shuffled")
GUARD_BYTES = 64


class Limits(ctypes.Structure):
    """DeviceLimits of launch_plan.h."""

    _fields_ = [
        ("multiprocessors", ctypes.c_int),
        ("shared_bytes", ctypes.c_int),
        ("max_blocks", ctypes.c_int64),
    ]


class Plan(ctypes.Structure):
    """LaunchPlan of launch_plan.h."""

    _fields_ = [
        ("path_number", ctypes.c_int),
        ("threads_per_row", ctypes.c_int),
        ("rows_per_block", ctypes.c_int),
        ("block_threads", ctypes.c_int),
        ("items_per_thread", ctypes.c_int),
        ("vector_width", ctypes.c_int),
        ("blocks", ctypes.c_int64),
        ("splits", ctypes.c_int),
        ("cached_packs", ctypes.c_int),
        ("shared_bytes", ctypes.c_int),
    ]

    @property
    def path(self) -> str:
        return PATHS[self.path_number]


def compile_driver(folder: Path, *, sources: Path = CSRC, flags: tuple[str, ...] = ()) -> Path:
    """Builds the driver with g++ into `folder`; `sources` may be a changed copy of csrc."""
    library = folder / "emulation.so"
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-Wno-unknown-pragmas"]
    command += ["-U_FORTIFY_SOURCE", *flags]  # it takes the fibres' jumps for stack smashing
    command += ["-I", str(HERE), "-I", str(sources), str(HERE / "driver.cpp"), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


class Buffer:
    """A tensor's bytes with poison around them, `misalign` bytes past a multiple of 16."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, misalign: int = 0) -> None:
        size = torch.empty(0, dtype=dtype).element_size()
        count = 1
        for extent in shape:
            count *= extent
        self.bytes = torch.full((count * size + 2 * GUARD_BYTES + 32,), 0xFF, dtype=torch.uint8)
        start = -self.bytes.data_ptr() % 16 + GUARD_BYTES + misalign
        self.inside = slice(start, start + count * size)
        self.tensor = (
            self.bytes[self.inside].view(dtype).view(shape)
            if count
            else torch.empty(shape, dtype=dtype)
        )
        self.address = self.bytes.data_ptr() + start

    @classmethod
    def of(cls, values: Tensor, misalign: int = 0) -> Buffer:
        buffer = cls(tuple(values.shape), values.dtype, misalign)
        buffer.tensor.copy_(values)
        return buffer

    def written(self) -> Tensor:
        """The tensor, after checking that all of it was written and nothing around it."""
        outside = torch.ones_like(self.bytes, dtype=torch.bool)
        outside[self.inside] = False
        if not bool((self.bytes[outside] == 0xFF).all()):
            raise AssertionError("a kernel wrote outside of its output")
        words = self.bytes[self.inside].view(-1, self.tensor.element_size())
        if bool((words == 0xFF).all(1).any()):
            raise AssertionError("a kernel left a part of its output unwritten")
        return self.tensor.clone()


class Emulation:
    """The raw ops on CPU tensors, run by the CUDA kernels' source."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        for name in ("plan", "kl", "perturb", "random_perturb", "posterior_summary"):
            getattr(self.library, f"emulation_{name}").restype = ctypes.c_char_p
        self.limits = Limits(132, 227 * 1024, 2**31 - 1)
        self.misalign = 0  # elements by which inputs and outputs miss a multiple of 16 bytes
        self.last_plan: Plan | None = None

    def order(self, name: str) -> None:
        """In which order the threads of a block run from now on: one of ORDERS."""
        self.library.emulation_set_order(ORDERS.index(name))

    def _call(self, name: str, *arguments: object) -> None:
        message = getattr(self.library, f"emulation_{name}")(*arguments)
        if message is not None:
            raise RuntimeError(message.decode())

    def plan(self, op: str, rows: int, cols: int, dtype_size: int, smoothed: bool = False) -> Plan:
        plan = Plan()
        self._call(
            "plan",
            OPS.index(op),
            ctypes.c_int64(rows),
            ctypes.c_int64(cols),
            dtype_size,
            int(smoothed),
            ctypes.byref(self.limits),
            ctypes.byref(plan),
        )
        return plan

    def _plan_for(self, op: str, x: Tensor, plan: Plan | None, smoothed: bool = False) -> object:
        cols = x[0].numel()
        self.last_plan = plan or self.plan(op, len(x), cols, x.element_size(), smoothed)
        return ctypes.byref(self.last_plan)

    def _in(self, values: Tensor) -> Buffer:
        return Buffer.of(values, self.misalign * values.element_size())

    def _out(self, shape: tuple[int, ...], dtype: torch.dtype) -> Buffer:
        size = torch.empty(0, dtype=dtype).element_size()
        return Buffer(shape, dtype, self.misalign * size)

    def _kl(self, op, p, q, smoothing, symmetric, plan, value, grad_value, stride, grads):
        a, b = self._in(p), self._in(q)
        self._call(
            "kl",
            OPS.index(op),
            DTYPES.index(p.dtype),
            *map(ctypes.c_void_p, (a.address, b.address)),
            *map(ctypes.c_int64, p.shape),
            ctypes.c_double(smoothing),
            int(symmetric),
            ctypes.c_void_p(value.address if value else None),
            ctypes.c_void_p(grad_value.address if grad_value else None),
            ctypes.c_int64(stride),
            *(ctypes.c_void_p(g.address if g else None) for g in grads),
            self._plan_for(op, p, plan, smoothing > 0),
        )

    def symmetric_kl(self, p, q, smoothing=0.0, symmetric=True, plan=None) -> Tensor:
        value = Buffer((len(p),), _scalar(p.dtype))
        self._kl("symmetric_kl", p, q, smoothing, symmetric, plan, value, None, 0, (None, None))
        return value.written()

    def symmetric_kl_direction(self, p, q, smoothing=0.0, symmetric=True, plan=None):
        value, grad = Buffer((len(p),), _scalar(p.dtype)), self._out(tuple(p.shape), p.dtype)
        self._kl(
            "symmetric_kl_direction", p, q, smoothing, symmetric, plan, value, None, 0, (None, grad)
        )
        return value.written(), grad.written()

    def symmetric_kl_backward(
        self, grad_value, p, q, smoothing=0.0, symmetric=True, need=(True, True), plan=None
    ):
        grads = [self._out(tuple(p.shape), p.dtype) if n else None for n in need]
        stride = grad_value.stride(0)
        given = Buffer.of(grad_value if stride else grad_value[:1])
        self._kl(
            "symmetric_kl_backward", p, q, smoothing, symmetric, plan, None, given, stride, grads
        )
        return tuple(g.written() if g else None for g in grads)

    def perturb(self, x, direction, radius, plan=None):
        a, d, out = self._in(x), self._in(direction), self._out(tuple(x.shape), x.dtype)
        norm = Buffer((len(x),), _scalar(x.dtype))
        self._call(
            "perturb",
            DTYPES.index(x.dtype),
            *map(ctypes.c_void_p, (a.address, d.address)),
            ctypes.c_double(radius),
            *map(ctypes.c_int64, (len(x), x[0].numel())),
            *map(ctypes.c_void_p, (out.address, norm.address)),
            self._plan_for("perturb", x, plan),
        )
        return out.written(), norm.written()

    def random_perturb(self, x, radius, seed, sample_index, plan=None):
        a, index, out = self._in(x), Buffer.of(sample_index), self._out(tuple(x.shape), x.dtype)
        self._call(
            "random_perturb",
            DTYPES.index(x.dtype),
            ctypes.c_void_p(a.address),
            ctypes.c_double(radius),
            ctypes.c_int64(seed),
            ctypes.c_void_p(index.address),
            *map(ctypes.c_int64, (len(x), x[0].numel())),
            ctypes.c_void_p(out.address),
            self._plan_for("random_perturb", x, plan),
        )
        return out.written()

    def posterior_summary(self, logits, plan=None):
        a, label = self._in(logits), Buffer((len(logits),), torch.int64)
        entropy, margin = (Buffer((len(logits),), _scalar(logits.dtype)) for _ in range(2))
        self._call(
            "posterior_summary",
            DTYPES.index(logits.dtype),
            ctypes.c_void_p(a.address),
            *map(ctypes.c_int64, logits.shape),
            *map(ctypes.c_void_p, (label.address, entropy.address, margin.address)),
            self._plan_for("posterior_summary", logits, plan),
        )
        return label.written(), entropy.written(), margin.written()


def _scalar(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
