"""The CUDA kernels of deepfool_step on the CPU (see test_cuda_emulation.py), against the reference.

Bounds: the sum behind a norm has about log2(D) roundings, the distance and the step a few more.
"""

from __future__ import annotations

import math

import pytest
import torch
from emulation.harness import DTYPES, ORDERS, Plan, needs_compiler
from emulation.rows import IMAGE_PATHS, STORAGE, boundaries, forced, relative_error, roundoff

from vaal_ext import reference

pytestmark = needs_compiler

SAMPLES, SLOTS, CLASSES = 5, 3, 6


def problem(cols: int, dtype: torch.dtype, *, samples: int = SAMPLES, slots: int = SLOTS):
    """Logits, gradients [B, K, cols], reference and candidates."""
    logits = torch.randn(samples, CLASSES).to(dtype)
    own = logits.argmax(1)
    others = torch.stack([torch.randperm(CLASSES - 1)[:slots] for _ in range(samples)])
    candidates = others + (others >= own.unsqueeze(1))
    return logits, torch.randn(samples, slots, cols).to(dtype), own, candidates


def check(found, logits, gradients, own, candidates) -> None:
    expected = reference.deepfool_step(logits.double(), gradients.double(), own, candidates)
    dtype = logits.dtype
    assert torch.equal(found[0], expected[0])
    assert (relative_error(found[1], expected[1]) <= 32 * roundoff(dtype)).all()
    # A rounding of the storage an element; below float16's normal numbers half of its smallest.
    floor = 2.0**-25 if dtype == torch.float16 else 0.0
    slack = 32 * roundoff(dtype) * expected[1].unsqueeze(1)
    slack = slack + 2 * STORAGE[dtype] * expected[2].abs() + floor
    assert ((found[2].double() - expected[2]).abs() <= slack).all()


@pytest.mark.parametrize("name", IMAGE_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_on_every_path(emulation, dtype, name):
    """Both orders in memory, aligned or not, gradients from tiny to huge."""
    path, threads, options = IMAGE_PATHS[name]
    tiny, huge = (1e-3, 1e2) if dtype == torch.float16 else (1e-30, 1e30)
    for cols in [2] if name == "warp1" else [63, 96] if name == "warp16" else [389, 400]:
        logits, gradients, own, candidates = problem(cols, dtype)
        scale = torch.tensor([1, tiny, huge, 1, 1]).view(-1, 1, 1)
        gradients = (gradients.double() * scale.double()).to(dtype)
        gradients[3, 0] = 0
        plan = forced("deepfool_step", gradients.flatten(0, 1), path, threads, **options)
        for lying in (gradients, gradients.transpose(0, 1).contiguous().transpose(0, 1)):
            for misalign in (0, 1):
                emulation.misalign = misalign
                found = emulation.deepfool_step(logits, lying, own, candidates, plan)
                check(found, logits, gradients, own, candidates)


@pytest.mark.parametrize("name", ["warp16", "block", "split"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_has_no_boundary(emulation, dtype, name):
    path, threads, options = IMAGE_PATHS[name]
    logits, gradients, own, candidates = problem(20, dtype, samples=8)
    logits[0, candidates[0, 0]] = -math.inf  # ruled out: its gradient is not looked at
    gradients[0, 0] = math.nan
    gradients[1] = 0  # nothing leads anywhere
    logits[2, candidates[2]] = -math.inf
    logits[3, candidates[3, 1]] = logits[3, own[3]]  # on the boundary
    gradients[4, 2, 5] = math.inf
    logits[5, candidates[5, 0]] = math.nan
    candidates[6, 1] = CLASSES
    candidates[7, 0] = own[7]
    plan = forced("deepfool_step", gradients.flatten(0, 1), path, threads, **options)
    nearest, distance, step = emulation.deepfool_step(logits, gradients, own, candidates, plan)
    expected = reference.deepfool_step(logits.double(), gradients.double(), own, candidates)
    assert nearest.tolist() == expected[0].tolist()
    assert nearest[[1, 2, 4, 5, 6]].tolist() == [-1] * 5
    assert distance[1:3].tolist() == [math.inf] * 2
    assert (distance[3], nearest[3]) == (0, candidates[3, 1])
    assert (step[1:4] == 0).all()
    assert distance[4:7].isnan().all()
    assert step[4:7].isnan().all()
    assert step[[0, 7]].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_at_the_boundaries_of_the_plan(emulation, dtype):
    for edge in boundaries("deepfool_step", dtype, 20_000):
        for cols in (edge - 1, edge, edge + 1):
            if cols:
                given = problem(cols, dtype, samples=2)
                check(emulation.deepfool_step(*given), *given)


def test_order_and_blocks_change_nothing(emulation):
    """Threads in any order, and a grid too small for all rows."""
    for name in ("warp16", "block", "split"):
        path, threads, options = IMAGE_PATHS[name]
        given = problem(200, torch.float32)
        plan = forced("deepfool_step", given[1].flatten(0, 1), path, threads, **options)
        runs = []
        for order in ORDERS:
            emulation.order = order
            runs.append(emulation.deepfool_step(*given, plan))
        plan.blocks = 2
        runs.append(emulation.deepfool_step(*given, plan))
        for run in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))

    assert Plan.of("deepfool_step", 0, 40, torch.float32).blocks == 0


@pytest.mark.parametrize("name", IMAGE_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_read_once_and_the_chosen_one_again(emulation, dtype, name):
    """(K + 1)·B·D loads and B·D stores, as launch_plan.h says."""
    path, threads, options = IMAGE_PATHS[name]
    cols = {"warp1": 16 // dtype.itemsize, "warp16": 64}.get(name, 384)
    given = problem(cols, dtype)
    emulation.traffic()
    plan = forced("deepfool_step", given[1].flatten(0, 1), path, threads, **options)
    step = emulation.deepfool_step(*given, plan)[2]
    assert [moved / step.nbytes for moved in emulation.traffic()] == [SLOTS + 1, 1]
