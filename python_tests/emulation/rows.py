"""Inputs and bounds for the tests of the emulated kernels."""

from __future__ import annotations

import math

import torch
from emulation.harness import Plan
from torch import Tensor

# Unit roundoff of the arithmetic (float32 for the half types) and of the storage.
ARITHMETIC = {torch.float64: 2.0**-53}
STORAGE = {
    torch.float32: 2.0**-24,
    torch.float64: 2.0**-53,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
}


# path, threads a row, options of forced()
KL_PATHS = {
    "warp1": ("warp", 1, {"few": True}),
    "warp8": ("warp", 8, {}),
    "warp32": ("warp", 32, {}),
    "block": ("block", 96, {}),
    "stream-lanes": ("stream", 8, {}),
    "stream": ("stream", 64, {}),
    "stream-part-cached": ("stream", 64, {"cached": 1}),
    "stream-all-cached": ("stream", 64, {"cached": 4}),
    "split": ("split", 64, {"splits": 2}),
}
IMAGE_PATHS = {
    "warp1": ("warp", 1, {"few": True}),
    "warp16": ("warp", 16, {}),
    "block": ("block", 96, {}),
    "split": ("split", 64, {"splits": 3}),
}
FISHER_PATHS = {name: path for name, path in KL_PATHS.items() if path[0] != "split"}
FISHER_PATHS.pop("stream-lanes")  # a block a row
SUMMARY_PATHS = {**IMAGE_PATHS, "stream": ("stream", 64, {})}


def roundoff(dtype: torch.dtype) -> float:
    """Unit roundoff of the arithmetic behind `dtype`."""
    return ARITHMETIC.get(dtype, 2.0**-24)


def scalar(dtype: torch.dtype) -> torch.dtype:
    """The type of one result a row."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def relative_error(x: Tensor, expected: Tensor) -> Tensor:
    """Per row ‖x − expected‖ / ‖expected‖, 0 where both are 0 (or beyond the type's range)."""
    x, expected = x.double().reshape(len(x), -1), expected.double().reshape(len(x), -1)
    difference = torch.linalg.vector_norm(x - expected, dim=1)
    size = torch.linalg.vector_norm(expected, dim=1)
    return torch.where(size < 1e-30, difference, difference / size.clamp_min(1e-300))


def logit_rows(cols: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pairs of rows [10, cols] that differ in kind.

    Ordinary (2 scales), a tiny step, saturated with a gap of 60, equal, tied maxima, a class at
    -inf in both, the argmax moved by 4, the argmax moved far away (wide) from a flat row, and from
    a saturated one.
    """
    p = 3 * torch.randn(10, cols, dtype=torch.float64)
    q = p + 0.3 * torch.randn(10, cols, dtype=torch.float64)
    last = cols - 1
    p[1] *= 4
    q[1] = p[1] + torch.randn(cols)
    q[2] = p[2] + 2e-3 * torch.randn(cols)
    p[3, 0] = p[3].max() + 60
    q[3] = p[3] + 0.1 * torch.randn(cols)
    q[4] = p[4]
    p[5, last] = p[5, 0] = p[5].max() + 1
    if cols > 2:
        p[6, 1] = q[6, 1] = -torch.inf
    q[7, last] = q[7].max() + 4
    p[8] = 0.1 * p[8]
    q[8, last] = q[8].max() + 45
    p[9, 0] = p[9].max() + 25
    q[9, last] = q[9].max() + 50
    return p.to(dtype), q.to(dtype)


def forced(
    op: str,
    x: Tensor,
    path: str,
    threads: int,
    *,
    splits: int = 1,
    cached: int = 0,
    few: bool = False,
) -> Plan:
    """A plan that sends x [rows, cols...] down `path` with `threads` threads a row."""
    wide_enough = 2**20  # any length: only items_per_thread is taken from that plan
    plan = Plan.of(op, 1, 1 if few else wide_enough, x.dtype)
    plan.path = path
    plan.threads_per_row = threads
    plan.block_threads = max(threads, 64)
    plan.rows_per_block = plan.block_threads // threads
    plan.splits = splits
    plan.cached_packs = cached
    plan.shared_bytes = 0 if path == "warp" else 2 * 32 * 48 + cached * 2 * 16 * threads
    plan.blocks = math.ceil(len(x) / plan.rows_per_block) * splits
    return plan


def boundaries(op: str, dtype: torch.dtype, largest: int, *, smoothed: bool = False) -> list[int]:
    """Row lengths b at which the kernel for b and for b + 1 elements differ."""

    def kernel(cols: int) -> tuple[str, int, int]:
        plan = Plan.of(op, 200, cols, dtype, smoothed=smoothed)
        threads = plan.threads_per_row if plan.path == "warp" else 0
        return plan.path, threads, plan.items_per_thread

    found, low = [], 1
    while low < largest:
        # The kernel changes once between `low` and the first power of two with another one.
        high = low
        while high < largest and kernel(high) == kernel(low):
            high = min(2 * high, largest)
        if kernel(high) == kernel(low):
            break
        inside = low
        while high - inside > 1:
            middle = (inside + high) // 2
            same = kernel(middle) == kernel(low)
            inside, high = (middle, high) if same else (inside, middle)
        found.append(inside)
        low = high
    return found


__all__ = [
    "FISHER_PATHS",
    "IMAGE_PATHS",
    "KL_PATHS",
    "STORAGE",
    "SUMMARY_PATHS",
    "boundaries",
    "forced",
    "logit_rows",
    "relative_error",
    "roundoff",
    "scalar",
    "shared_rows",
]


def moved_rows(cols: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pairs of rows [16, cols] whose posterior narrows or moves by much.

    The pivot rises, alone or from among many equals; another class takes the lead and is saturated
    in its turn; all is made sharper.
    """
    generator = torch.Generator().manual_seed(cols)
    spread = torch.randn(cols, generator=generator, dtype=torch.float64)
    flat, sharp = 0.01 * spread, 2 * spread
    sharp[0] = sharp.max() + 4
    flat[0] = flat.max() + 0.01
    step = 0.1 * torch.randn(cols, generator=generator, dtype=torch.float64)
    first, second = torch.eye(2, cols, dtype=torch.float64)
    rows = [(start, start + step + by * first) for start in (flat, sharp) for by in (6, 12, 24, 60)]
    rows += [(start, start + step + by * second) for start in (flat, sharp) for by in (12, 30, 60)]
    rows += [(sharp + 30 * first, sharp + step + 70 * second), (spread, 8 * spread)]
    a, b = zip(*rows, strict=True)
    return torch.stack(a).to(dtype), torch.stack(b).to(dtype)


def shared_rows(cols: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pairs of rows [10, cols] in which several classes share a posterior.

    Two or three classes lead by 15, by 30 or by 60, tied or nearly so, and a class below rises; all
    move a little; one of those that lead falls; two others take the lead, by 10 and by 45 more;
    out of a flat row many tied classes rise.
    """
    generator = torch.Generator().manual_seed(cols)
    low = 0.3 * torch.randn(cols, generator=generator, dtype=torch.float64)
    step = 0.1 * torch.randn(cols, generator=generator, dtype=torch.float64)
    units = torch.eye(cols, dtype=torch.float64)
    first, last = units[0], units[-1]

    def leading(by: float, *classes: int, apart: float = 0.0) -> Tensor:
        row = low.clone()
        for place, j in enumerate(classes):
            row[j] = by - apart * place
        return row

    tied, near, three = leading(15, 0, 1), leading(30, 0, 1, apart=1e-4), leading(60, 0, 1, 2)
    rows = [(start, start + last) for start in (tied, near, three)]
    rows += [(start, start + step) for start in (tied, near, three)]
    rows += [(tied, tied - 3e-3 * first)]
    rows += [(tied, leading(by, 2, 3, apart=1e-6)) for by in (25, 60)]
    rows += [(low, 40 * torch.round(low, decimals=1))]
    a, b = zip(*rows, strict=True)
    return torch.stack(a).to(dtype), torch.stack(b).to(dtype)
