"""The KL kernels for CUDA, compiled for the CPU by g++, against the float64 reference.

Every kernel and every launch path runs as it stands in csrc/cuda; only the header of device
primitives is another one (emulation/fibres.h says what it checks), and AddressSanitizer and UBSan
watch. Bounds are multiples of the unit
roundoff of the arithmetic, plus one rounding of the storage for what is stored in a half type.
"""

from __future__ import annotations

import math

import pytest
import torch
from emulation.harness import DTYPES, Plan, needs_compiler
from emulation.rows import (
    KL_PATHS,
    STORAGE,
    boundaries,
    forced,
    logit_rows,
    moved_rows,
    relative_error,
    roundoff,
    scalar,
    shared_rows,
)

from vaal_ext import reference

pytestmark = needs_compiler

DIVERGENCE = {True: "symmetric", False: "forward"}
COLS_THAT_FIT = {"warp1": (2, 1), "warp8": (24, 21), "warp32": (104, 101)}  # even, odd


def expected_kl(p, q, smoothing, symmetric, grad_value):
    a, b = p.double().requires_grad_(), q.double().requires_grad_()
    divergence = DIVERGENCE[symmetric]
    value = reference.symmetric_kl(a, b, smoothing=smoothing, divergence=divergence)
    grad_p, grad_q = torch.autograd.grad(value, (a, b), grad_value.double())
    _, direction = reference.symmetric_kl_direction(
        p.double(), q.double(), smoothing=smoothing, divergence=divergence
    )
    return value.detach(), direction, grad_p, grad_q


def check_kl(emulation, p, q, smoothing, symmetric, plan_of=lambda op: None, wide=(8, 9)):
    """The three ops against the reference.

    400 roundoffs (2.4e-5 in float32, the accuracy the project asks for at the worst row) for the
    value and all gradients. In a wide row u = log q − log p carries a few roundoffs of the largest
    logit, here below 100: 4000 there. Half types add one rounding of what they store; float16
    gradients may also reach the subnormal range. `oracle` is what the reference's own float64
    gradient can be trusted to where it cancels (p saturated in a wide row).
    """
    rows = len(p)
    grad_value = torch.linspace(-1, 2, rows, dtype=scalar(p.dtype))
    value, direction, grad_p, grad_q = expected_kl(p, q, smoothing, symmetric, grad_value)
    bound = torch.full((rows,), 400 * roundoff(p.dtype), dtype=torch.float64)
    bound[[row for row in wide if row < rows]] *= 10
    stored = bound + (STORAGE[p.dtype] if p.element_size() == 2 else 0)
    arguments = (p, q, smoothing, symmetric)

    got = emulation.symmetric_kl(*arguments, plan=plan_of("symmetric_kl"))
    assert (relative_error(got, value) <= bound).all()
    got, got_direction = emulation.symmetric_kl_direction(
        *arguments, plan=plan_of("symmetric_kl_direction")
    )
    assert (relative_error(got, value) <= bound).all()
    assert (relative_error(got_direction, direction) <= stored).all()
    peak = got_direction.abs().amax(1)
    assert ((peak == 1) | (peak == 0)).all()

    floor = 2.0**-24 * math.sqrt(p.shape[1]) if p.dtype == torch.float16 else 0.0
    oracle = 64 * 2.0**-53 * (grad_value.double() * value).abs()
    backward = plan_of("symmetric_kl_backward")
    for need in ((True, True), (True, False), (False, True)):
        got = emulation.symmetric_kl_backward(grad_value, *arguments, need=need, plan=backward)
        for mine, expected in zip(got, (grad_p, grad_q), strict=True):
            if mine is not None:
                size = torch.linalg.vector_norm(expected, dim=1).clamp_min(1e-30)
                assert (relative_error(mine, expected) <= stored + (floor + oracle) / size).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", KL_PATHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kl_on_every_path(emulation, dtype, name, symmetric):
    path, threads, options = KL_PATHS[name]
    # 200 columns are whole packs of every type, 197 are not; misaligned pointers as well.
    even, odd = COLS_THAT_FIT.get(name, (200, 197))
    for cols, misalign in ((even, 0), (even, 1), (odd, 0), (odd, 1)):
        p, q = logit_rows(cols, dtype)
        emulation.misalign = misalign

        def plan_of(op, x=p):
            return forced(op, x, path, threads, **options)

        check_kl(emulation, p, q, 0.0, symmetric, plan_of)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", ["stream-lanes", "stream-part-cached"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kl_smoothed(emulation, dtype, name, symmetric):
    path, threads, options = KL_PATHS[name]
    p, q = logit_rows(50, dtype)

    def plan_of(op):
        return forced(op, p, path, threads, **options)

    for smoothing in (1e-3, 0.1):
        check_kl(emulation, p, q, smoothing, symmetric, plan_of)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("name", "smoothing"),
    [("warp8", 0.0), ("block", 0.0), ("stream", 0.0), ("stream", 0.1)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_posterior_that_narrows_or_moves(emulation, dtype, name, smoothing, symmetric):
    path, threads, options = KL_PATHS[name]
    p, q = moved_rows({"warp8": 24, "block": 200}.get(name, 1000), dtype)

    def plan_of(op):
        return forced(op, p, path, threads, **options)

    check_kl(emulation, p, q, smoothing, symmetric, plan_of, wide=())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", ["stream-lanes", "stream-part-cached"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_classes_that_share_a_smoothed_posterior(emulation, dtype, name, symmetric):
    """Row 8 is wide; of row 9 q is saturated beside a flat p (4000 roundoffs, as wide rows have).

    Row 2 consists of numbers of e^-120, which float32 does not hold.
    """
    path, threads, options = KL_PATHS[name]
    held = [row for row in range(10) if row != 2 or dtype == torch.float64]
    p, q = (x[held] for x in shared_rows(50, dtype))

    def plan_of(op):
        return forced(op, p, path, threads, **options)

    for smoothing in (1e-3, 0.5):
        check_kl(emulation, p, q, smoothing, symmetric, plan_of, wide=(7, 8, 9))


@pytest.mark.parametrize(("dtype", "smoothing"), [(d, 0.0) for d in DTYPES] + [(DTYPES[0], 0.1)])
def test_kl_at_the_boundaries_of_the_plan(emulation, dtype, smoothing):
    """The last row length of every kernel, one less and one more, with the plan as it is."""
    op = "symmetric_kl_direction"
    for edge in boundaries(op, dtype, 4200, smoothed=smoothing > 0):
        for cols in (edge - 1, edge, edge + 1):
            p, q = (x[:3] for x in logit_rows(cols, dtype))
            check_kl(emulation, p, q, smoothing, True, wide=())


@pytest.mark.parametrize("rows", [1, 65, 66, 67])
def test_long_kl_rows_as_planned(emulation, rows):
    """3073 classes leave the registers: split for up to 66 rows, then stream (one is checked)."""
    op = "symmetric_kl_direction"
    p, q = (x[:1] for x in logit_rows(3073, torch.float32))
    plan = Plan.of(op, rows, 3073, torch.float32)
    assert plan.path == ("split" if rows <= 66 else "stream")
    plan.blocks = plan.splits
    value, direction = emulation.symmetric_kl_direction(p, q, plan=plan)
    expected, _, _, _ = expected_kl(p, q, 0.0, True, torch.ones(1))
    assert relative_error(value, expected) <= 400 * roundoff(p.dtype)
    exact = reference.symmetric_kl_direction(p.double(), q.double())[1]
    assert relative_error(direction, exact) <= 400 * roundoff(p.dtype)


NON_FINITE = {
    "both at -inf": ([1, -math.inf, 2, 0.5], [1.5, -math.inf, 1, 0.3]),
    "p at -inf": ([1, -math.inf, 2, 0.5], [1.5, 0, 1, 0.3]),
    "q at -inf": ([1, 1, 2, 0.5], [1.5, -math.inf, 1, 0.3]),
    "two of p at -inf": ([1, -math.inf, 2, -math.inf], [1.5, 0, 1, 0.3]),
    "two of q at -inf": ([1, 1, 2, 0.5], [1.5, -math.inf, 1, -math.inf]),
    "q at -inf at the pivot": ([1, 1, 2, 0.5], [1.5, 1, -math.inf, 0.3]),
    "all but the pivot at -inf": ([1] + [-math.inf] * 3, [2] + [-math.inf] * 3),
    "p NaN": ([1, math.nan, 2, 0.5], [1, 1, 1, 1]),
    "q NaN": ([1, 1, 2, 0.5], [1, 1, math.nan, 1]),
    "p +inf": ([1, math.inf, 2, 0.5], [1, 1, 1, 1]),
    "q +inf": ([1, 2, 2, 0.5], [1, math.inf, 1, 1]),
    "all p NaN": ([math.nan] * 4, [1] * 4),
    "all p -inf": ([-math.inf] * 4, [0, 1, 2, 3]),
    "all q -inf": ([0, 1, 2, 3], [-math.inf] * 4),
}


@pytest.mark.parametrize(
    ("name", "smoothing"),
    [
        ("warp8", 0.0),
        ("block", 0.0),
        ("stream", 0.0),
        ("split", 0.0),
        ("stream", 0.1),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kl_of_rows_that_are_not_finite(emulation, dtype, name, smoothing):
    """The value and the direction as in the reference; the row beside is untouched.

    34 roundoffs for the value, 400 and one rounding of the storage for the direction, 17 of its
    largest entry where one is small.
    """
    path, threads, options = KL_PATHS[name]
    one = roundoff(dtype)
    stored = STORAGE[dtype] if dtype.itemsize == 2 else 0
    for a, b in NON_FINITE.values():
        p = torch.tensor([a, [1.0, 2, 3, 4]]).to(dtype)
        q = torch.tensor([b, [1.5, 2, 3, 4]]).to(dtype)
        plan = forced("symmetric_kl_direction", p, path, threads, **options)
        value, direction = emulation.symmetric_kl_direction(p, q, smoothing, plan=plan)
        expected, exact = reference.symmetric_kl_direction(
            p.double(), q.double(), smoothing=smoothing
        )
        torch.testing.assert_close(value.double(), expected, rtol=34 * one, atol=0, equal_nan=True)
        torch.testing.assert_close(
            direction.double(), exact, rtol=400 * one + stored, atol=17 * one, equal_nan=True
        )


def test_grad_value_may_be_expanded(emulation):
    p, q = logit_rows(10, torch.float32)
    same = torch.tensor([0.7]).expand(10)
    grads = emulation.symmetric_kl_backward(same, p, q)
    again = emulation.symmetric_kl_backward(same.contiguous(), p, q)
    assert all(torch.equal(x, y) for x, y in zip(grads, again, strict=True))
