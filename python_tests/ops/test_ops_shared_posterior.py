"""Smoothed rows in which several classes share a confident posterior, and the ends of the range.

What the classes that share it differ by is far less than what each adds to a gradient; and where
only a class far below moves, all numbers of a row are tiny. Every row is held against mpmath.
"""

from __future__ import annotations

import mpmath
import pytest
import torch
from emulation.rows import shared_rows
from many_digits import digits, error_and_size, exact, value_and_gradients

from vaal_ext import ops, reference

DIGITS = 200  # gaps of up to 100: see exact()
MODULES = pytest.mark.parametrize("module", [ops, reference], ids=["ops", "reference"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
DIVERGENCES = pytest.mark.parametrize("divergence", ["symmetric", "forward"])


def check_row(module, a, b, smoothing, divergence, roundoffs):
    """The value, both gradients and the direction of one row within so many roundoffs.

    A value or gradient whose norm lies below 1e-30 in float32 has factors that it stores with fewer
    digits or not at all; a direction does not become small.
    """
    how = {"smoothing": smoothing, "divergence": divergence}
    got = [*value_and_gradients(module, a, b, **how)]
    got.append(module.symmetric_kl_direction(a, b, **how)[1])
    smallest = 1e-30 if a.dtype == torch.float32 else 1e-290
    with mpmath.workdps(DIGITS):
        expected = exact(digits(a[0]), digits(b[0]), mpmath.mpf(smoothing), divergence)
        peak = max(abs(x) for x in expected[2])
        expected.append([x / peak for x in expected[2]])
        for name, ours, theirs in zip(
            ("value", "grad_p", "grad_q", "direction"), got, expected, strict=True
        ):
            error, size = error_and_size(ours[0], theirs)
            if size > smallest:
                assert error <= roundoffs * torch.finfo(a.dtype).eps / 2 * size, name


@MODULES
@DTYPES
@DIVERGENCES
@pytest.mark.parametrize(
    ("logits", "moves"),
    [
        ([12.0, 12.0, 0.0, -1.0], 2),
        ([16.0, 15.9999, 0.0, -1.0], 2),
        ([20.0, 20.0, 0.0, -1.0], 2),
        ([60.0, 60.0, 60.0, 0.0], 3),
        ([100.0, 100.0, 0.0, -1.0], 2),
    ],
    ids=str,
)
def test_one_class_below_those_that_share_the_posterior(
    logits, moves, divergence, dtype, module, kernels
):
    """One logit rises by 1. 200 roundoffs: e^x has |x| of them, and two are multiplied.

    The float32 of csrc/cuda has bounds of its own, in cuda/test_cuda_emulation_kl.py.
    """
    if kernels == "emulated" and dtype == torch.float32:
        return
    a = torch.tensor([logits], dtype=dtype)
    b = a.clone()
    b[0, moves] += 1
    check_row(module, a, b, 0.1, divergence, 200)


def test_the_direction_of_three_that_share_the_posterior():
    a = torch.tensor([[60.0, 60.0, 60.0, 0.0]])
    b = torch.tensor([[60.0, 60.0, 60.0, 1.0]])
    _, direction = ops.symmetric_kl_direction(a, b, smoothing=0.1)
    torch.testing.assert_close(direction, torch.tensor([[-1 / 3, -1 / 3, -1 / 3, 1]]))


@MODULES
@DTYPES
@DIVERGENCES
@pytest.mark.parametrize("smoothing", [1e-6, 0.1, 0.9])
@pytest.mark.parametrize("cols", [4, 17])
def test_shared_posteriors(cols, smoothing, divergence, dtype, module, kernels):
    """400 roundoffs, as at the worst row elsewhere. The reference and csrc/cuda are held to them in
    float64."""
    if (module is reference or kernels == "emulated") and dtype == torch.float32:
        return
    for a, b in zip(*shared_rows(cols, dtype), strict=True):
        check_row(module, a.unsqueeze(0), b.unsqueeze(0), smoothing, divergence, 400)


@DTYPES
@DIVERGENCES
@pytest.mark.parametrize("smoothing", [1e-3, 0.1])
def test_shared_posteriors_of_long_rows(smoothing, divergence, dtype):
    """The reference in float64 is the measure; it and float64 kernels have 400 roundoffs each."""
    a, b = shared_rows(1000, dtype)
    how = {"smoothing": smoothing, "divergence": divergence}
    got = [*value_and_gradients(ops, a, b, **how)]
    got += [ops.symmetric_kl_direction(a, b, **how)[1]]
    a, b = a.double(), b.double()
    expected = [*value_and_gradients(reference, a, b, **how)]
    expected += [reference.symmetric_kl_direction(a, b, **how)[1]]
    for ours, theirs in zip(got, expected, strict=True):
        theirs = theirs.reshape(len(a), -1)
        error = torch.linalg.vector_norm(ours.reshape(len(a), -1) - theirs, dim=1)
        size = torch.linalg.vector_norm(theirs, dim=1)
        assert (error <= 400 * torch.finfo(dtype).eps * size)[size > 1e-30].all()


@DTYPES
@pytest.mark.parametrize(
    ("a", "b", "smoothing"),
    [([-1, 9.418, 60], [87, 9.418, 60.00001], 0), ([-1, 60], [87, 60], 0.1)],
    ids=str,
)
def test_the_argmax_leaves_a_class_far_below_behind(a, b, smoothing, dtype, kernels):
    """∂/∂a of the class that rises is of the order e^-61, its rise e^87."""
    a, b = torch.tensor([a], dtype=dtype), torch.tensor([b], dtype=dtype)
    check_row(ops, a, b, smoothing, "forward", 100)
    check_row(ops, a, b, smoothing, "symmetric", 100)


@DTYPES
@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("gap", [80, 100, 200, 600])
def test_only_a_class_far_below_the_runner_up_moves(gap, smoothing, dtype):
    """One row, and several, which are laid over registers in another way.

    Smoothed, everything is of the order e^-2·gap, which float64 does not hold for the last one.
    """
    a = torch.full((1, 5), -5.0, dtype=dtype)
    a[0, 0], a[0, 1], a[0, 2] = 60, 60 if smoothing else 0, (60 if smoothing else 0) - gap
    if smoothing and gap == 600:
        a[0, 2] = -200
    b = a.clone()
    b[0, 2] += 1
    with mpmath.workdps(600):
        expected = exact(digits(a[0]), digits(b[0]), mpmath.mpf(smoothing), "symmetric")[2]
        peak = max(abs(x) for x in expected)
        expected = torch.tensor([[float(x / peak) for x in expected]], dtype=torch.float64)
    tangents = b - a
    for rows in (1, 40):
        a, b, tangents = (x[:1].expand(rows, 5).contiguous() for x in (a, b, tangents))
        _, direction = ops.symmetric_kl_direction(a, b, smoothing=smoothing)
        bound = 40 * torch.finfo(dtype).eps
        assert ((direction.double() - expected).abs() <= bound).all()
        # Beside it an ordinary row, and equal tangents, which give a row of zeros.
        logits = torch.cat([a, a[:1].flip(1), a[:1]])
        more = torch.cat([tangents, torch.tensor([[1.0, 2, 3, 4, 5], [7.0] * 5], dtype=dtype)])
        product = ops.fisher_product(logits, more)
        measure = reference.fisher_product(logits.double(), more.double())
        torch.testing.assert_close(product.double(), measure, rtol=0, atol=bound)
        assert ((product[:rows].abs().amax(1) - 1).abs() <= torch.finfo(dtype).eps).all()


@pytest.mark.parametrize("elements", [3, 70_000])
@pytest.mark.parametrize("size", [5e-324, 1e-309, 1e-300, 1.0, 1e300])
def test_perturb_in_float64_at_both_ends(size, elements, kernels):
    """The smallest subnormal number is 4.9e-324; there the direction itself has one digit."""
    direction = torch.zeros(2, elements, dtype=torch.float64)
    direction[:, 0] = size
    direction[:, -1] = -size
    out, norm = ops.perturb(torch.zeros_like(direction), direction, 3.0, return_norm=True)
    expected = torch.zeros_like(direction)
    expected[:, 0], expected[:, -1] = 3 / 2**0.5, -3 / 2**0.5
    torch.testing.assert_close(out, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(
        norm, torch.full((2,), 2**0.5 * size, dtype=torch.float64), rtol=1e-14, atol=5e-324
    )
