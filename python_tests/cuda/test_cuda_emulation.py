"""The other CUDA kernels, compiled for the CPU by g++, against the float64 reference.

Every kernel and every launch path runs as it stands in csrc/cuda; only the header of device
primitives is another one (emulation/fibres.h says what it checks), and AddressSanitizer and UBSan
watch. Bounds are multiples of the unit
roundoff of the arithmetic, plus one rounding of the storage for what is stored in a half type.
"""

from __future__ import annotations

import math

import pytest
import torch
from emulation.harness import DTYPES, OPS, ORDERS, Plan, needs_compiler
from emulation.rows import (
    FISHER_PATHS,
    IMAGE_PATHS,
    KL_PATHS,
    STORAGE,
    SUMMARY_PATHS,
    boundaries,
    forced,
    logit_rows,
    relative_error,
    roundoff,
)

from vaal_ext import reference

pytestmark = needs_compiler


@pytest.mark.parametrize("name", IMAGE_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_perturb_on_every_path(emulation, dtype, name):
    """32 roundoffs of the step: about log2(D) roundings in the sum, a few in the factor."""
    path, threads, options = IMAGE_PATHS[name]
    for cols in [2] if name == "warp1" else [63, 96] if name == "warp16" else [389, 400]:
        x, d = torch.randn(7, cols).to(dtype), torch.randn(7, cols)
        tiny, huge = (1e-5, 1e4) if dtype == torch.float16 else (1e-30, 1e30)
        least = torch.finfo(dtype).smallest_normal
        scale = torch.tensor([1, tiny, huge, 0, least, 1, 1]).unsqueeze(1)
        d = (d.double() * scale.double()).to(dtype)
        d[5, 1:] = 0
        d[6, -1] = torch.finfo(dtype).max / 4
        for misalign in (0, 1):
            emulation.misalign = misalign
            plan = forced("perturb", x, path, threads, **options)
            out, norm = emulation.perturb(x, d, 0.7, plan)
            expected, exact_norm = reference.perturb(x.double(), d.double(), 0.7, return_norm=True)
            slack = 32 * roundoff(dtype) * 0.7 + 2 * STORAGE[dtype] * expected.abs()
            assert ((out.double() - expected).abs() <= slack).all()
            assert torch.equal(out[3], x[3])
            assert norm[3] == 0
            smallest = 2.0**-149 if dtype != torch.float64 else 0
            assert ((norm - exact_norm).abs() <= 32 * roundoff(dtype) * exact_norm + smallest).all()


@pytest.mark.parametrize("name", ["warp16", "block", "split"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_perturb_along_what_is_not_finite(emulation, dtype, bad, name):
    path, threads, options = IMAGE_PATHS[name]
    x, d = torch.randn(2, 2, 20).to(dtype)
    d[0, 3] = bad
    out, norm = emulation.perturb(x, d, 0.5, forced("perturb", x, path, threads, **options))
    assert out[0].isnan().all()
    assert norm[0].isnan()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("name", IMAGE_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_perturb_on_every_path(emulation, dtype, name):
    """64 roundoffs of the step: two more elementary functions a normal than perturb."""
    path, threads, options = IMAGE_PATHS[name]
    index = torch.tensor([0, 5, 2**40 + 3, 7])
    for cols in [2] if name == "warp1" else [63, 96] if name == "warp16" else [389, 400]:
        x = torch.randn(4, cols).to(dtype)
        noise = reference.random_normal(cols, seed=2**33 + 1, sample_index=index)
        expected = reference.perturb(x.double(), noise, 0.7)
        for misalign in (0, 1):
            emulation.misalign = misalign
            plan = forced("random_perturb", x, path, threads, **options)
            out = emulation.random_perturb(x, 0.7, 2**33 + 1, index, plan)
            slack = 64 * roundoff(dtype) * 0.7 + 2 * STORAGE[dtype] * expected.abs()
            assert ((out.double() - expected).abs() <= slack).all()


@pytest.mark.parametrize("name", SUMMARY_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_posterior_summary_on_every_path(emulation, dtype, name):
    """64 roundoffs: sums of terms of one sign, so the entropy of a saturated row is right too."""
    path, threads, options = SUMMARY_PATHS[name]
    for cols in [2] if name == "warp1" else [63, 96] if name == "warp16" else [1201, 1200]:
        a, _ = logit_rows(cols, dtype)
        a[0] = 0  # all tied: label 0
        for misalign in (0, 1):
            emulation.misalign = misalign
            plan = forced("posterior_summary", a, path, threads, **options)
            label, entropy, margin = emulation.posterior_summary(a, plan)
            expected = reference.posterior_summary(a.double())
            assert torch.equal(label, expected[0])
            assert (relative_error(entropy, expected[1]) <= 64 * roundoff(dtype)).all()
            assert ((margin - expected[2]).abs() <= 64 * roundoff(dtype)).all()


@pytest.mark.parametrize("name", ["warp16", "block", "stream", "split"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_posterior_summary_of_rows_that_are_not_finite(emulation, dtype, name):
    path, threads, options = SUMMARY_PATHS[name]
    a = torch.randn(6, 30).to(dtype)
    a[0, 7] = a[0, 9] = math.nan
    a[1, 5] = math.inf
    a[2] = -math.inf
    a[3, :29] = -math.inf
    a[4] = math.nan
    plan = forced("posterior_summary", a, path, threads, **options)
    label, entropy, margin = emulation.posterior_summary(a, plan)
    assert label.tolist() == a.argmax(1).tolist()
    assert entropy[[0, 1, 2, 4]].isnan().all()
    assert margin[[0, 1, 2, 4]].isnan().all()
    assert (entropy[3], margin[3]) == (0, 1)
    assert entropy[5].isfinite()


@pytest.mark.parametrize("name", FISHER_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fisher_product_on_every_path(emulation, dtype, name):
    """64 roundoffs of the row: a few a class, and log2(C) in the sums. One of the storage besides.

    A class at -inf stays out, whatever its tangent; equal tangents give 0.
    """
    path, threads, options = FISHER_PATHS[name]
    for cols in {"warp1": [2], "warp8": [7, 16], "warp32": [63, 96]}.get(name, [383, 384]):
        a, _ = logit_rows(cols, dtype)
        v = torch.randn(10, cols)
        v[1] *= 1e-4 if dtype == torch.float16 else 1e-30
        v[4] = 2.5
        v[6] = torch.where(a[6] == -math.inf, math.nan, v[6])
        v = v.to(dtype)
        for misalign in (0, 1):
            emulation.misalign = misalign
            plan = forced("fisher_product", a, path, threads, **options)
            product = emulation.fisher_product(a, v, plan)
            expected = reference.fisher_product(a.double(), v.double())
            slack = 64 * roundoff(dtype) + 2 * STORAGE[dtype]
            assert (relative_error(product, expected) <= slack).all()
            assert (product[4] == 0).all()


@pytest.mark.parametrize("name", ["warp8", "block", "stream"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fisher_product_of_rows_that_are_not_finite(emulation, dtype, name):
    path, threads, options = FISHER_PATHS[name]
    a, v = torch.randn(2, 8, 30).to(dtype)
    a[0, 7], a[1, 5], a[2] = math.nan, math.inf, -math.inf
    v[3, 4], v[4, 9], v[5, a[5].argmax()] = math.nan, math.inf, -math.inf
    a[6, :29], v[6, 3] = -math.inf, math.nan
    product = emulation.fisher_product(a, v, forced("fisher_product", a, path, threads, **options))
    assert product[:6].isnan().all()
    assert (product[6] == 0).all()
    assert product[7].isfinite().all()


@pytest.mark.parametrize("name", FISHER_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fisher_direction_on_every_path(emulation, dtype, name):
    """64 roundoffs: a few a class, and log2(C) in the sums. One of the storage besides."""
    path, threads, options = FISHER_PATHS[name]
    for cols in {"warp1": [2], "warp8": [7, 16], "warp32": [63, 96]}.get(name, [383, 384]):
        a, _ = logit_rows(cols, dtype)
        a[0] = 0  # all tied
        a[1, 0], a[1, 1:] = 70, 0  # saturated, the others tied
        a[2, :2] = a[2].max()
        for misalign in (0, 1):
            emulation.misalign = misalign
            plan = forced("fisher_direction", a, path, threads, **options)
            direction, curvature = emulation.fisher_direction(a, plan)
            expected = reference.fisher_direction(a.double())
            slack = 64 * roundoff(dtype)
            assert (relative_error(direction, expected[0]) <= slack + 2 * STORAGE[dtype]).all()
            assert (relative_error(curvature, expected[1]) <= slack).all()


@pytest.mark.parametrize("name", ["warp8", "block", "stream"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fisher_direction_of_rows_that_are_not_finite(emulation, dtype, name):
    path, threads, options = FISHER_PATHS[name]
    a = torch.randn(6, 30).to(dtype)
    a[0, 7], a[1, 5], a[2] = math.nan, math.inf, -math.inf
    a[3, :29], a[4, 3] = -math.inf, -math.inf
    plan = forced("fisher_direction", a, path, threads, **options)
    direction, curvature = emulation.fisher_direction(a, plan)
    assert direction[:3].isnan().all()
    assert curvature[:3].isnan().all()
    assert (direction[3] == 0).all()
    assert curvature[3] == 0
    assert direction[4:].isfinite().all()
    assert direction[4, 3] == 0


@pytest.mark.parametrize(
    "op", ["perturb", "random_perturb", "posterior_summary", "fisher_product", "fisher_direction"]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_other_ops_at_the_boundaries_of_the_plan(emulation, dtype, op):
    """The last row length of every kernel, one less and one more, with the plan as it is.

    64 roundoffs, and one of the storage for an image.
    """
    for edge in boundaries(op, dtype, 20_000):
        for cols in (edge - 1, edge, edge + 1):
            if cols == 0:
                continue
            x = torch.randn(2, cols).to(dtype)
            index = torch.tensor([3, 4])
            if op == "perturb":
                d = torch.randn(2, cols).to(dtype)
                out = emulation.perturb(x, d, 0.5)[0]
                expected = reference.perturb(x.double(), d.double(), 0.5)
            elif op == "random_perturb":
                out = emulation.random_perturb(x, 0.5, 1, index)
                noise = reference.random_normal(cols, seed=1, sample_index=index)
                expected = reference.perturb(x.double(), noise, 0.5)
            elif op == "fisher_product":
                v = torch.randn(2, cols).to(dtype)
                out = emulation.fisher_product(x, v)
                expected = reference.fisher_product(x.double(), v.double())
            elif op == "fisher_direction":
                out = emulation.fisher_direction(x)[0]
                expected = reference.fisher_direction(x.double())[0]
            else:
                out = emulation.posterior_summary(x)[1]
                expected = reference.posterior_summary(x.double())[1]
            stored = 2 * STORAGE[dtype] if op != "posterior_summary" else 0
            slack = 64 * roundoff(dtype) * (0.5 + expected.abs()) + stored * expected.abs()
            assert ((out.double() - expected).abs() <= slack).all()


def test_threads_in_any_order_give_the_same_bits(emulation):
    p, q = logit_rows(197, torch.float32)
    x, d = torch.randn(3, 700), torch.randn(3, 700)
    index = torch.arange(3)
    results = []
    for order in ORDERS:
        emulation.order = order
        run = []
        for name in ("block", "stream-all-cached", "split"):
            path, threads, options = KL_PATHS[name]
            plan = forced("symmetric_kl_direction", p, path, threads, **options)
            run += emulation.symmetric_kl_direction(p, q, plan=plan)
            if path != "split":
                plan = forced("fisher_product", p, path, threads, **options)
                run.append(emulation.fisher_product(p, q, plan))
                plan = forced("fisher_direction", p, path, threads, **options)
                run += emulation.fisher_direction(p, plan)
        for name in ("block", "split"):
            path, threads, options = IMAGE_PATHS[name]
            run += emulation.perturb(x, d, 0.5, forced("perturb", x, path, threads, **options))
            plan = forced("random_perturb", x, path, threads, **options)
            run.append(emulation.random_perturb(x, 0.5, 1, index, plan))
            plan = forced("posterior_summary", x, path, threads, **options)
            run += emulation.posterior_summary(x, plan)
        results.append(run)
    for other in results[1:]:
        assert all(
            torch.equal(mine, theirs) for mine, theirs in zip(results[0], other, strict=True)
        )


def test_fewer_blocks_than_rows(emulation):
    """The kernels loop over what is left when the grid is too small for all rows."""
    p, q = logit_rows(40, torch.float32)
    x, d = torch.randn(10, 40), torch.randn(10, 40)
    for name in ("warp32", "block", "stream", "split"):
        path, threads, options = KL_PATHS[name]
        runs = []
        for blocks in (None, 2):
            plans = [
                forced(op, p, path, threads, **options)
                for op in (
                    "symmetric_kl_direction",
                    "perturb",
                    "posterior_summary",
                    "fisher_product",
                    "fisher_direction",
                )
            ]
            for plan in plans:
                plan.blocks = blocks or plan.blocks
            run = [*emulation.symmetric_kl_direction(p, q, plan=plans[0])]
            if path != "stream":  # perturb has none
                run += emulation.perturb(x, d, 0.5, plans[1])
            if path != "split":
                run.append(emulation.fisher_product(p, q, plans[3]))
                run += emulation.fisher_direction(p, plans[4])
            runs.append([*run, *emulation.posterior_summary(p, plans[2])])
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(*runs, strict=True))


def test_an_empty_batch(emulation):
    """It needs no block, and a block without a row touches nothing."""
    for op in OPS:
        for cols in (1, 100, 5000, 200_000):
            assert Plan.of(op, 0, cols, torch.float32).blocks == 0
    nothing = torch.empty(0, 40)
    for name in ("warp32", "block", "stream", "split"):
        path, threads, options = KL_PATHS[name]

        def plan(op, path=path, threads=threads, options=options):
            forced_plan = forced(op, nothing, path, threads, **options)
            forced_plan.blocks = 2
            return forced_plan

        value, direction = emulation.symmetric_kl_direction(
            nothing, nothing, plan=plan("symmetric_kl_direction")
        )
        assert (value.shape, direction.shape) == ((0,), (0, 40))
        assert emulation.posterior_summary(nothing, plan("posterior_summary"))[1].shape == (0,)
        if path != "split":
            out = emulation.fisher_product(nothing, nothing, plan("fisher_product"))
            assert out.shape == (0, 40)
        if path == "stream":  # the others have none
            continue
        assert emulation.perturb(nothing, nothing, 0.5, plan("perturb"))[0].shape == (0, 40)
        index = torch.empty(0, dtype=torch.int64)
        out = emulation.random_perturb(nothing, 0.5, 1, index, plan("random_perturb"))
        assert out.shape == (0, 40)
