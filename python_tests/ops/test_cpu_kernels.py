"""The CPU kernels, for every instruction set that is here, as each toolchain makes them.

By g++ under AddressSanitizer and UBSan: each tensor is an allocation of exactly its size, so that a
vector load or store that reaches past the end of one is caught. By clang++, and by g++ for aarch64
under qemu, where these are installed. What the kernels compute is held to the float64 reference:
400 unit roundoffs of the arithmetic, the accuracy that test_ops_accuracy.py asks for in detail, and
one rounding of what is stored.
"""

from __future__ import annotations

import pytest
import torch
from emulation.build import AARCH64, CLANG, SANITIZED
from emulation.cpu_kernels import INSTRUCTION_SETS, STORAGE, Compiled, CpuKernels
from emulation.rows import STORAGE as ROUNDING
from emulation.rows import relative_error, roundoff

from vaal_ext import reference

# One element, both sides of every register width and of the layouts that put several rows or
# several registers side by side, and a long row.
LENGTHS = (1, 2, 3, 5, 7, 8, 9, 10, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 257, 1003)


COMPILED = [Compiled(each, name) for each in (SANITIZED, CLANG) for name in INSTRUCTION_SETS]
COMPILED += [Compiled(AARCH64, "portable")]


@pytest.fixture(
    scope="module", params=COMPILED, ids=lambda c: f"{c.toolchain.name}-{c.instruction_set}"
)
def compiled(request):
    if missing := request.param.missing():
        pytest.skip(missing)
    return request.param


def stored(dtype: torch.dtype) -> float:
    return 400 * roundoff(dtype) + (ROUNDING[dtype] if dtype.itemsize == 2 else 0)


def pair(rows: int, cols: int, dtype: torch.dtype):
    p = 3 * torch.randn(rows, cols, dtype=torch.float64)
    return p.to(dtype), (p + 0.3 * torch.randn_like(p)).to(dtype)


@pytest.mark.parametrize("misalign", [0, 1])
@pytest.mark.parametrize("dtype", STORAGE, ids=str)
def test_kl(compiled, dtype, misalign):
    torch.manual_seed(0)
    kernels = CpuKernels(compiled, dtype, misalign)
    floor = 2.0**-24 if dtype == torch.float16 else 0.0  # its subnormal numbers
    for cols in LENGTHS:
        for rows in (1, 19):
            p, q = pair(rows, cols, dtype)
            given = torch.rand(rows).to(kernels.scalar) + 0.5
            for smoothing, symmetric in ((0.0, True), (0.0, False), (0.1, True), (0.1, False)):
                options = {"smoothing": smoothing, "symmetric": symmetric}
                how = {
                    "smoothing": smoothing,
                    "divergence": "symmetric" if symmetric else "forward",
                }
                a, b = (x.double().requires_grad_() for x in (p, q))
                exact = reference.symmetric_kl(a, b, **how)
                value, direction = kernels.symmetric_kl(p, q, direction=True, **options)
                assert (relative_error(value, exact.detach()) <= 400 * roundoff(dtype)).all()
                assert torch.equal(kernels.symmetric_kl(p, q, **options)[0], value)
                expected = reference.symmetric_kl_direction(p.double(), q.double(), **how)[1]
                assert (relative_error(direction, expected) <= stored(dtype)).all()
                grads = kernels.symmetric_kl_backward(given, p, q, **options)
                for mine, gradient in zip(
                    grads, torch.autograd.grad(exact, (a, b), given.double()), strict=True
                ):
                    size = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
                    slack = stored(dtype) * size + floor * cols**0.5 + 64 * 2.0**-53
                    difference = torch.linalg.vector_norm(mine - gradient, dim=1, keepdim=True)
                    assert (difference <= slack).all()


@pytest.mark.parametrize("dtype", STORAGE, ids=str)
def test_one_class_moves_nothing(compiled, dtype):
    """The row's padding, which rounds as the logits do, must not be all that a row is made of."""
    torch.manual_seed(0)
    kernels = CpuKernels(compiled, dtype)
    for p, q in zip(*pair(100, 1, dtype), strict=True):
        value, direction = kernels.symmetric_kl(p[None], q[None], direction=True)
        assert (value.item(), direction.item()) == (0, 0)


@pytest.mark.parametrize("misalign", [0, 1])
@pytest.mark.parametrize("dtype", STORAGE, ids=str)
def test_posterior_summary(compiled, dtype, misalign):
    torch.manual_seed(0)
    kernels = CpuKernels(compiled, dtype, misalign)
    for cols in LENGTHS:
        for rows in (1, 19):
            logits, _ = pair(rows, cols, dtype)
            label, entropy, margin = kernels.posterior_summary(logits)
            expected = reference.posterior_summary(logits.double())
            assert torch.equal(label, expected[0])
            assert (relative_error(entropy, expected[1]) <= 400 * roundoff(dtype)).all()
            assert ((margin - expected[2]).abs() <= 400 * roundoff(dtype)).all()


@pytest.mark.parametrize("misalign", [0, 1])
@pytest.mark.parametrize("dtype", STORAGE, ids=str)
def test_fisher_product(compiled, dtype, misalign):
    torch.manual_seed(0)
    kernels = CpuKernels(compiled, dtype, misalign)
    for cols in LENGTHS:
        for rows in (1, 19):
            logits, tangents = pair(rows, cols, dtype)
            logits[0, 0] += 60
            product = kernels.fisher_product(logits, tangents)
            expected = reference.fisher_product(logits.double(), tangents.double())
            assert (relative_error(product, expected) <= stored(dtype)).all()


@pytest.mark.parametrize("misalign", [0, 1])
@pytest.mark.parametrize("dtype", STORAGE, ids=str)
def test_fisher_direction(compiled, dtype, misalign):
    torch.manual_seed(0)
    kernels = CpuKernels(compiled, dtype, misalign)
    for cols in LENGTHS:
        for rows in (1, 19):
            logits, _ = pair(rows, cols, dtype)
            logits[0, 0] += 60
            logits[-1, 0] = logits[-1].max()  # a tie, or the first class as the pivot
            direction, curvature = kernels.fisher_direction(logits)
            expected = reference.fisher_direction(logits.double())
            assert (relative_error(direction, expected[0]) <= stored(dtype)).all()
            assert (relative_error(curvature, expected[1]) <= 400 * roundoff(dtype)).all()


@pytest.mark.parametrize("dtype", STORAGE, ids=str)
def test_normals_of_short_samples(compiled, dtype):
    """The bits that each sample has alone."""
    kernels = CpuKernels(compiled, dtype, 0)
    index = torch.arange(16) * (2**33 + 1)
    for count in (1, 2, 4, 5, 63):
        alone = [kernels.normals(7, int(i), 0, count) for i in index]
        assert torch.equal(kernels.short_normals(7, index, count), torch.stack(alone))


@pytest.mark.parametrize("misalign", [0, 1])
@pytest.mark.parametrize("dtype", STORAGE, ids=str)
def test_norm_and_steps(compiled, dtype, misalign):
    torch.manual_seed(0)
    kernels = CpuKernels(compiled, dtype, misalign)
    for count in LENGTHS:
        x, d = torch.randn(2, count).to(dtype)
        exact = float(torch.linalg.vector_norm(d.double()))
        assert abs(kernels.norm(d) - exact) <= 400 * roundoff(dtype) * exact
        normals = kernels.normals(2**33 + 1, 2**40 + 3, 4 * count, count)
        expected = reference.random_normal(
            5 * count, seed=2**33 + 1, sample_index=torch.tensor([2**40 + 3])
        )[0, 4 * count :]
        assert ((normals - expected).abs() <= 64 * roundoff(dtype) * (1 + expected.abs())).all()
        for step in (d, normals):
            out = kernels.add_scaled(x, step, 0.7)
            expected = x.double() + 0.7 * step.double()
            slack = 4 * roundoff(dtype) * (x.abs().double() + 0.7 * step.abs().double())
            assert (
                (out.double() - expected).abs() <= slack + ROUNDING[dtype] * expected.abs()
            ).all()
        out, expected = kernels.scaled(d, -3, 0.7), 8 * 0.7 * d.double()
        slack = (4 * roundoff(dtype) + ROUNDING[dtype]) * expected.abs()
        assert ((out.double() - expected).abs() <= slack).all()


@pytest.mark.parametrize("dtype", STORAGE, ids=str)
def test_rows_that_are_not_finite(compiled, dtype):
    """They must not lead a kernel out of its tensors; the values are test_ops.py's."""
    kernels = CpuKernels(compiled, dtype)
    for cols in (3, 10, 129):
        for bad in (float("nan"), float("inf"), -float("inf")):
            p, q = pair(5, cols, dtype)
            p[0], q[1], p[2, 0], q[3, -1] = bad, bad, bad, bad
            for smoothing in (0.0, 0.1):
                kernels.symmetric_kl(p, q, smoothing=smoothing, direction=True)
            product = kernels.fisher_product(p, q)
            lost = [True, True, bad != -float("inf"), True, False]  # a class at -inf is ruled out
            assert product.isnan().any(1).tolist() == lost
            direction, _ = kernels.fisher_direction(p)
            assert direction.isnan().any(1).tolist() == [True, False, *lost[2:3], False, False]
            label, entropy, _ = kernels.posterior_summary(p)
            assert ((label >= 0) & (label < cols)).all()
            assert entropy[4].isfinite()
            step = torch.where(torch.arange(cols) == 1, bad, 1.0).to(dtype)
            kernels.norm(step)
            assert not kernels.add_scaled(p[4], step, 0.7)[1].isfinite()
