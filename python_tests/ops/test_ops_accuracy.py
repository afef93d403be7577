"""The headline: relative errors of the fused ops where the textbook formula is noise.

Two steps. The pivot formulas in float64 (vaal_ext.reference) are checked against mpmath with 50
digits; then the float32 kernels are checked against those formulas in float64.
"""

import mpmath
import pytest
import torch
from emulation.rows import moved_rows
from many_digits import digits, error_and_size, exact, value_and_gradients

from vaal_ext import ops, reference

STEPS = [1.0, 1e-2, 1e-4, 1e-6]
SPREADS = [3, 10]
CLASSES = [2, 10, 100, 1000, 32000]
# Rows below this hold numbers that float32 stores with fewer digits or not at all.
SMALLEST = 1e-30


def logits(rows, cols, spread, step, dtype=torch.float32):
    generator = torch.Generator().manual_seed(cols * 1000 + spread)
    a = torch.randn(rows, cols, generator=generator, dtype=torch.float64) * spread
    b = a + step * torch.randn(rows, cols, generator=generator, dtype=torch.float64)
    return a.to(dtype), b.to(dtype)


def row_errors(got, expected, smallest=SMALLEST):
    """Relative error of every row (of its norm, for a gradient) that is not too small."""
    got, expected = got.double(), expected.double()
    if got.ndim == 1:
        got, expected = got.unsqueeze(1), expected.unsqueeze(1)
    size = torch.linalg.vector_norm(expected, dim=1)
    kept = size > smallest
    return (torch.linalg.vector_norm(got - expected, dim=1) / size)[kept]


@pytest.mark.parametrize("how", [(0.0, "symmetric"), (0.0, "forward"), (0.1, "symmetric")], ids=str)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("cols", [2, 10, 100])
def test_float64_formulas_agree_with_50_digits(cols, spread, step, how):
    """1e-13: the logits' own rounding is not at stake (both sides get the same float64 numbers),
    what remains is a few hundred roundings of 1e-16 and exponents of up to 100 (100 · 1e-16)."""
    smoothing, divergence = how
    a, b = logits(4, cols, spread, step, torch.float64)
    got = value_and_gradients(reference, a, b, smoothing=smoothing, divergence=divergence)
    with mpmath.workdps(50):
        for row in range(len(a)):
            expected = exact(digits(a[row]), digits(b[row]), mpmath.mpf(smoothing), divergence)
            for ours, theirs in zip(got, expected, strict=True):
                error, size = error_and_size(ours[row], theirs)
                assert error <= 1e-13 * size


@pytest.mark.parametrize("divergence", ["symmetric", "forward"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("cols", CLASSES)
def test_float32_is_right_at_every_step(cols, spread, step, divergence, kernels):
    """1e-6 at the median row, 2e-5 at the worst. A logit of up to 40 rounds by 40 · 6e-8 = 2e-6 in
    a difference, which is what a worst row shows; ten times that is allowed."""
    a, b = logits(200 if cols < 32000 else 16, cols, spread, step)
    got = value_and_gradients(ops, a, b, divergence=divergence)
    expected = value_and_gradients(reference, a.double(), b.double(), divergence=divergence)
    for ours, theirs in zip(got, expected, strict=True):
        errors = row_errors(ours, theirs)
        assert len(errors) > 0
        assert errors.median() <= 1e-6
        assert errors.max() <= 2e-5


@pytest.mark.parametrize("divergence", ["symmetric", "forward"])
@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("spread", [10, 40])
@pytest.mark.parametrize("cols", [3, 20, 300])
def test_logits_that_have_nothing_in_common(cols, spread, smoothing, divergence, kernels):
    """The argmax moves by dozens, beyond what the pivot serves; everything keeps its relative
    accuracy, also a gradient that vanishes because a posterior is saturated. With smoothing the
    bound is that of the test of it below. A gradient under 1e-20 has factors that float32 stores
    with fewer digits or not at all."""
    a, b = logits(200, cols, spread, 1.5 * spread)
    how = {"divergence": divergence, "smoothing": smoothing}
    got = value_and_gradients(ops, a, b, **how)
    expected = value_and_gradients(reference, a.double(), b.double(), **how)
    for ours, theirs in zip(got, expected, strict=True):
        errors = row_errors(ours, theirs, smallest=1e-20)
        assert errors.max() <= (1e-4 if smoothing else 2e-5)


@pytest.mark.parametrize("divergence", ["symmetric", "forward"])
@pytest.mark.parametrize("smoothing", [0, 1e-3, 0.1])
@pytest.mark.parametrize("cols", [4, 30])
def test_float64_of_a_posterior_that_narrows_or_moves(cols, smoothing, divergence, kernels):
    """400 roundoffs of the row's norm, however small a saturated row's gradient is."""
    a, b = moved_rows(cols, torch.float64)
    how = {"smoothing": smoothing, "divergence": divergence}
    results = [value_and_gradients(module, a, b, **how) for module in (ops, reference)]
    with mpmath.workdps(60):
        for row in range(len(a)):
            expected = exact(digits(a[row]), digits(b[row]), mpmath.mpf(smoothing), divergence)
            for got in results:
                for ours, theirs in zip(got, expected, strict=True):
                    error, size = error_and_size(ours[row], theirs)
                    assert error <= 400 * 2**-53 * size, row


@pytest.mark.parametrize("divergence", ["symmetric", "forward"])
@pytest.mark.parametrize("smoothing", [0, 1e-3, 0.1])
@pytest.mark.parametrize("cols", [4, 30, 1000, 32000])
def test_float32_of_a_posterior_that_narrows_or_moves(cols, smoothing, divergence, kernels):
    """400 roundoffs (2.4e-5), as at the worst row elsewhere; rows are laid over registers in two
    ways (30, 1000 classes).

    The gradient by the first logits is p_j (h_j - h): one number h for all classes, the mean of the
    h_j, in which numbers as large as the largest of these cancel where a flat posterior becomes
    sharp. Four roundoffs of that largest one (of two sums, a quotient and a logarithm) move the
    classes beside the pivot by 4·2^-24·max|h_j|·‖p‖, and chance decides how they add up: over 24
    rows of 32,000 classes AVX-512, AVX2 and SSE2 were all off by between 2e-6 and 2.4e-5.
    """
    a, b = moved_rows(cols, torch.float32)
    how = {"smoothing": smoothing, "divergence": divergence}
    got = value_and_gradients(ops, a, b, **how)
    expected = value_and_gradients(reference, a.double(), b.double(), **how)
    allowed = torch.full((3, len(a)), 400 * 2**-24, dtype=torch.float64)
    if smoothing or divergence == "forward":  # else h_j has no bound, and the kernel no such h
        shared = 4 * 2**-24 * largest_h(a, b, **how)
        beside = torch.softmax(a.double(), 1).scatter(1, a.argmax(1, keepdim=True), 0.0)
        allowed[1] += shared * beside.norm(dim=1) / expected[1].norm(dim=1)
    assert allowed.max() < 1e-3
    for ours, theirs, most in zip(got, expected, allowed, strict=True):
        assert (row_errors(ours, theirs) <= most).all()


def largest_h(a, b, smoothing, divergence):
    """max |h_j| [B], h_j the derivative of the divergence by the (smoothed) p_j, less 1."""
    p, q = ((1 - smoothing) * torch.softmax(z.double(), 1) + smoothing / a.shape[1] for z in (a, b))
    h = (p / q).log() - (q / p if divergence == "symmetric" else 0)
    return h.abs().amax(1)


@pytest.mark.parametrize("cols", [3, 300])
@pytest.mark.parametrize(("dtype", "bottom"), [(torch.float32, -87), (torch.float64, -708)])
def test_a_class_that_rises_from_below_the_range_of_numbers(dtype, bottom, cols, kernels):
    """e^bottom is the smallest normal number. One class comes from below it and is all that the
    value and the gradient consist of; rows are laid over registers in two ways (3, 300 classes)."""
    rises = torch.tensor([2.0, 20.0, 40.0, 60.0, 80.0, 100.0, 300.0, 700.0], dtype=dtype)
    a = torch.full((len(rises), cols), -5.0, dtype=dtype)
    a[:, 0], a[:, 2] = 0.0, bottom - 13.0
    b = a.clone()
    b[:, 2] += rises
    got = value_and_gradients(ops, a, b)
    with mpmath.workdps(50):
        for row in range(len(a)):
            expected = exact(digits(a[row]), digits(b[row]), 0, "symmetric")
            for ours, theirs in zip(got, expected, strict=True):
                error, size = error_and_size(ours[row], theirs)
                assert error <= max(50 * torch.finfo(dtype).eps * size, torch.finfo(dtype).tiny)


@pytest.mark.parametrize("divergence", ["symmetric", "forward"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("cols", [2, 10, 1000])
@pytest.mark.parametrize("smoothing", [1e-6, 1e-3, 0.1])
def test_smoothed_values_and_gradients(smoothing, cols, step, divergence, kernels):
    """Smoothing adds a logarithm of 1 + y and a division: twice the bounds of the plain op at the
    median; at the worst row the gradient's two terms, each right to 1e-6, cancel to a hundredth."""
    a, b = logits(200, cols, 3, step)
    how = {"divergence": divergence, "smoothing": smoothing}
    got = value_and_gradients(ops, a, b, **how)
    expected = value_and_gradients(reference, a.double(), b.double(), **how)
    for ours, theirs in zip(got, expected, strict=True):
        errors = row_errors(ours, theirs)
        assert errors.median() <= 2e-6
        assert errors.max() <= 1e-4


def cosine(x, y):
    return torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gap", [0, 20, 60, 200])
@pytest.mark.parametrize("cols", [2, 10, 100, 1000])
def test_direction_survives_saturation_and_half_precision(cols, gap, dtype, kernels):
    """A cosine within 1e-6 of 1. bfloat16 cannot store every direction that well (its 8 bits alone
    cost about 2e-6): there the result must be as good as the exact direction rounded to it."""
    a, b = logits(50, cols, 1, 0.1)
    a[:, 0] += gap
    b[:, 0] += gap
    a, b = a.to(dtype), b.to(dtype)
    moved = (a != b).any(dim=1) & ((b - a) != (b - a)[:, :1]).any(dim=1)
    assert moved.sum() > 10
    value, direction = ops.symmetric_kl_direction(a, b)
    _, expected = reference.symmetric_kl_direction(a.double(), b.double())
    stored = 1 - cosine(expected.to(dtype), expected)
    missed = 1 - cosine(direction, expected)
    assert (missed <= torch.clamp_min(1.01 * stored, 1e-6))[moved].all()
    assert ((direction[moved].abs().amax(dim=1) - 1).abs() <= 2**-23).all()  # one unit of rounding
    assert (value >= 0).all()


def test_direction_is_the_scaled_gradient(kernels):
    a, b = logits(64, 10, 3, 0.3)
    _, _, gradient = value_and_gradients(ops, a, b)
    _, direction = ops.symmetric_kl_direction(a, b)
    scaled = gradient / gradient.abs().amax(dim=1, keepdim=True)
    torch.testing.assert_close(direction, scaled, rtol=1e-6, atol=1e-7)


def test_textbook_formula_fails_where_this_one_holds():
    """Without this the accuracy tests above could pass on easy input."""
    a, b = logits(200, 10, 10, 1e-4)
    q = b.clone().requires_grad_()
    log_p, log_q = a.log_softmax(1), q.log_softmax(1)
    textbook = ((log_q.exp() - log_p.exp()) * (log_q - log_p)).sum(1)
    (gradient,) = torch.autograd.grad(textbook.sum(), q)
    _, _, expected = value_and_gradients(reference, a.double(), b.double())
    assert row_errors(gradient, expected).max() > 1e-2


@pytest.mark.parametrize("cols", [1, 2, 10, 33, 1000])
def test_posterior_summary(cols, kernels):
    """Entropy and margin lie within a few roundings of float32 of their own size or of 1."""
    a, _ = logits(300, cols, 4, 0)
    label, entropy, margin = ops.posterior_summary(a)
    expected = reference.posterior_summary(a.double())
    assert torch.equal(label, expected[0])
    torch.testing.assert_close(entropy.double(), expected[1], rtol=3e-6, atol=1e-12)
    torch.testing.assert_close(margin.double(), expected[2], rtol=3e-6, atol=3e-7)


def exact_product(a, v):
    """diag(p) v - p (p·v) of one row, scaled to maximum 1, with mpmath's digits."""
    p = [mpmath.exp(x - max(a)) for x in a]
    p = [x / mpmath.fsum(p) for x in p]
    mean = mpmath.fsum(x * y for x, y in zip(p, v, strict=True))
    product = [x * (y - mean) for x, y in zip(p, v, strict=True)]
    peak = max(abs(x) for x in product)
    return [x / peak for x in product]


@pytest.mark.parametrize("gap", [0, 60, 200])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("cols", [2, 10, 100])
def test_fisher_product_agrees_with_200_digits(cols, spread, gap, kernels):
    """float64's formulas to 1e-13, as above, and the float32 kernel to the 2e-6 of a logit of 40
    that rounds in a difference. 200 digits: with a gap of 200, p·v misses its largest term by
    e^-200."""
    a, v = logits(6, cols, spread, 1.0, torch.float64)
    a[:, 0] += gap
    for dtype, module, bound in (
        (torch.float64, reference, 1e-13),
        (torch.float64, ops, 1e-13),
        (torch.float32, ops, 2e-6),
    ):
        x, y = a.to(dtype), v.to(dtype)
        product = module.fisher_product(x, y)
        with mpmath.workdps(200):
            for row in range(len(x)):
                expected = exact_product(digits(x[row]), digits(y[row]))
                error, size = error_and_size(product[row], expected)
                assert error <= bound * size


def exact_top_direction(a):
    """The top eigenvector of diag(p) - ppᵀ, -1 at the pseudo label, and its eigenvalue.

    By bisection of Σ p_j/(λ - p_j) = 0, whose terms change sign at the pseudo label alone.
    """
    k = a.index(max(a))
    p = [mpmath.exp(x - a[k]) for x in a]
    p = [x / mpmath.fsum(p) for x in p]
    others = [x for j, x in enumerate(p) if j != k]
    low, high = max(others), p[k]
    if low == high:
        tied = [j for j, x in enumerate(p) if x == high and j != k]
        entries = [mpmath.mpf(j in tied) / len(tied) for j in range(len(p))]
        return [*entries[:k], mpmath.mpf(-1), *entries[k + 1 :]], high
    while high - low > low * mpmath.mpf(10) ** -50:
        middle = (low + high) / 2
        over = mpmath.fsum(x / (middle - x) for x in others) > p[k] / (p[k] - middle)
        low, high = (middle, high) if over else (low, middle)
    entries = [x / (high - x) for x in p]
    total = mpmath.fsum(entries) - entries[k]
    return [-1 if j == k else x / total for j, x in enumerate(entries)], high


def rows_with_a_top_direction(cols):
    """Broad, sharp and saturated ones (1 - p of 1e-30 and of 1e-87); ties and near ties of two and
    of all."""
    generator = torch.Generator().manual_seed(cols)
    a = torch.randn(9, cols, generator=generator, dtype=torch.float64)
    a *= torch.tensor([0.01, 1, 5, 30, 1, 1, 1, 1, 1], dtype=torch.float64).unsqueeze(1)
    a[4, 0] = a[4].max() + 70
    a[5, 0] = a[5].max() + 200
    a[6, :2] = a[6].max() + 1
    a[7, 0], a[7, 1] = 4 + 2**-20, 4
    a[8] = 0
    return a


@pytest.mark.parametrize("cols", [2, 3, 10, 40])
def test_fisher_direction_agrees_with_60_digits(cols, kernels):
    """Of a row maximum of 1 a few roundings; of λ twenty, in the sums, and those of the difference
    of the two largest logits, a rounding of its own size that an exponential makes relative. λ of
    1e-87 is nothing in float32."""
    a = rows_with_a_top_direction(cols)
    for dtype, module in (
        (torch.float64, reference),
        (torch.float64, ops),
        (torch.float32, ops),
    ):
        x, roundoff = a.to(dtype), torch.finfo(dtype).eps
        direction, curvature = module.fisher_direction(x)
        with mpmath.workdps(60):
            for row in range(len(x)):
                expected, eigenvalue = exact_top_direction(digits(x[row]))
                error, _ = error_and_size(direction[row], expected)
                assert error <= 8 * cols**0.5 * roundoff
                if eigenvalue > torch.finfo(dtype).tiny:
                    top = x[row].topk(2).values
                    allowed = (20 + float(top[0] - top[1])) * roundoff
                    found = digits(curvature[row : row + 1])[0]
                    assert abs(found / eigenvalue - 1) <= allowed


def test_fisher_direction_is_an_eigenvector(kernels):
    """Of many classes too, in float64: what is left of (F - λ) v is rounding, and no other
    eigenvalue is larger."""
    a, _ = logits(4, 300, 3, 0, torch.float64)
    direction, curvature = ops.fisher_direction(a)
    p = torch.softmax(a, 1)
    matrix = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    product = (matrix @ direction.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(product, curvature.unsqueeze(1) * direction, rtol=0, atol=1e-15)
    torch.testing.assert_close(curvature, torch.linalg.eigvalsh(matrix)[:, -1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gap", [0, 20, 60, 200])
@pytest.mark.parametrize("cols", [2, 10, 100, 1000])
def test_fisher_product_survives_saturation_and_half_precision(cols, gap, dtype, kernels):
    """As for the direction: what the type can store, or a cosine within 1e-6 of 1."""
    a, v = logits(50, cols, 1, 1.0)
    a[:, 0] += gap
    a, v = a.to(dtype), v.to(dtype)
    product = ops.fisher_product(a, v)
    expected = reference.fisher_product(a.double(), v.double())
    stored = 1 - cosine(expected.to(dtype), expected)
    assert (1 - cosine(product, expected) <= torch.clamp_min(1.01 * stored, 1e-6)).all()
    assert ((product.abs().amax(dim=1) - 1).abs() <= 2**-23).all()
