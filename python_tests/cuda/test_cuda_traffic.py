"""How often the CUDA kernels read and write each element, counted in the emulation.

launch_plan.h states the count of every path, and a copy (one load, one store) is the measure.
csrc/cuda/roofline.csv says whether these bytes bind a kernel, or its instructions.
"""

from __future__ import annotations

import pytest
import torch
from emulation.harness import DTYPES, needs_compiler
from emulation.rows import FISHER_PATHS, IMAGE_PATHS, KL_PATHS, SUMMARY_PATHS, forced

pytestmark = needs_compiler

ROWS, COLS = 7, 384  # whole packs in every dtype, and no more than 96 threads hold in float64


@pytest.fixture
def emulation(emulation):
    emulation.traffic()  # what earlier tests moved
    return emulation


def elements(emulation, x) -> tuple[float, float]:
    """Loads and stores per element of x since the last call."""
    return tuple(moved / x.nbytes for moved in emulation.traffic())


@pytest.mark.parametrize("name", ["warp32", "block", "stream-all-cached"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kl_reads_every_logit_once(emulation, dtype, name):
    path, threads, options = KL_PATHS[name]
    cols = COLS if path != "warp" else 32
    a, b = torch.randn(2, ROWS, cols).to(dtype)

    def plan(op):
        return forced(op, a, path, threads, **options)

    emulation.symmetric_kl(a, b, plan=plan("symmetric_kl"))
    assert elements(emulation, a) == (2, 0)
    # Value and direction, 3·B·C: as many bytes as one copy and a half.
    emulation.symmetric_kl_direction(a, b, plan=plan("symmetric_kl_direction"))
    assert elements(emulation, a) == (2, 1)
    given = torch.ones(ROWS, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    for need, stores in (((False, True), 1), ((True, True), 2)):
        emulation.symmetric_kl_backward(given, a, b, need=need, plan=plan("symmetric_kl_backward"))
        assert elements(emulation, a) == (2, stores)


@pytest.mark.parametrize("name", IMAGE_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_steps_read_a_long_direction_twice(emulation, dtype, name):
    """perturb: 3·B·D with the row on the chip, 4·B·D in parts. random_perturb: x in and out."""
    path, threads, options = IMAGE_PATHS[name]
    cols = {"warp1": 16 // dtype.itemsize, "warp16": 64}.get(name, COLS)
    x, d = torch.randn(2, ROWS, cols).to(dtype)
    emulation.perturb(x, d, 0.5, forced("perturb", x, path, threads, **options))
    assert elements(emulation, x) == (3 if path == "split" else 2, 1)
    index = torch.arange(ROWS)
    plan = forced("random_perturb", x, path, threads, **options)
    emulation.random_perturb(x, 0.5, 1, index, plan)
    assert elements(emulation, x) == (1, 1)


@pytest.mark.parametrize("name", SUMMARY_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_summary_reads_every_logit_once(emulation, dtype, name):
    path, threads, options = SUMMARY_PATHS[name]
    cols = {"warp1": 16 // dtype.itemsize, "warp16": 64}.get(name, COLS)
    a = torch.randn(ROWS, cols).to(dtype)
    emulation.posterior_summary(a, forced("posterior_summary", a, path, threads, **options))
    assert elements(emulation, a) == (1, 0)


@pytest.mark.parametrize("name", ["warp32", "block", "stream-all-cached"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fisher_product_reads_both_rows_once(emulation, dtype, name):
    path, threads, options = FISHER_PATHS[name]
    a, v = torch.randn(2, ROWS, COLS if path != "warp" else 32).to(dtype)
    emulation.fisher_product(a, v, forced("fisher_product", a, path, threads, **options))
    assert elements(emulation, a) == (2, 1)


@pytest.mark.parametrize("name", ["warp32", "block", "stream-all-cached"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fisher_direction_reads_the_row_once(emulation, dtype, name):
    path, threads, options = FISHER_PATHS[name]
    a = torch.randn(ROWS, COLS if path != "warp" else 32).to(dtype)
    emulation.fisher_direction(a, forced("fisher_direction", a, path, threads, **options))
    assert elements(emulation, a) == (1, 1)
