"""The contract of the ops: shapes, dtypes, strides, edges, autograd, compile, errors."""

import shutil

import pytest
import torch

from vaal_ext import ops, reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
inf, nan = float("inf"), float("nan")


def pair(rows, cols, dtype=torch.float32, device="cpu", step=0.3):
    generator = torch.Generator().manual_seed(rows * 7 + cols)
    a = torch.randn(rows, cols, generator=generator) * 3
    b = a + step * torch.randn(rows, cols, generator=generator)
    return a.to(device, dtype), b.to(device, dtype)


def tolerance(dtype):
    """A few units in the last place of the arithmetic, or one of the storage."""
    return {
        torch.float64: 1e-12,
        torch.float32: 1e-5,
        torch.float16: 2e-3,
        torch.bfloat16: 1.6e-2,
    }[dtype]


# Every shape is there for a reason: nothing, one class, one lane, both sides of a register (16,
# 17), both sides of the change of layout (128, 129), many registers, and a vocabulary.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cols", [1, 2, 3, 10, 16, 17, 100, 128, 129, 1000, 128256])
@pytest.mark.parametrize("rows", [0, 1, 5, 37])
def test_values_and_directions(rows, cols, dtype, device):
    if rows * cols > 10**6:
        rows = 2
    a, b = pair(rows, cols, dtype, device)
    for how in ({}, {"divergence": "forward"}, {"smoothing": 0.05}):
        value, direction = ops.symmetric_kl_direction(a, b, **how)
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert value.shape == (rows,)
        assert direction.dtype == dtype
        assert direction.shape == (rows, cols)
        expected = reference.symmetric_kl_direction(a.double(), b.double(), **how)
        rtol = tolerance(torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(value.double(), expected[0], rtol=rtol, atol=1e-30)
        torch.testing.assert_close(
            direction.double(), expected[1], rtol=0, atol=max(tolerance(dtype), 3e-5)
        )
        torch.testing.assert_close(ops.symmetric_kl(a, b, **how), value, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cols", [1, 2, 3, 10, 16, 17, 100, 128, 129, 1000, 128256])
@pytest.mark.parametrize("rows", [0, 1, 5, 37])
def test_fisher_products(rows, cols, dtype, device):
    """Of a row maximum of 1, sums of terms of both signs lose a few hundred roundoffs."""
    if rows * cols > 10**6:
        rows = 2
    logits, tangents = pair(rows, cols, dtype, device, step=1.0)
    product = ops.fisher_product(logits, tangents)
    assert (product.shape, product.dtype) == ((rows, cols), dtype)
    expected = reference.fisher_product(logits.double(), tangents.double())
    torch.testing.assert_close(
        product.double(),
        expected,
        rtol=0,
        atol=max(tolerance(dtype), 3e-5) if dtype != torch.float64 else 1e-12,
    )
    twin = reference.fisher_product(logits, tangents)
    assert (twin.shape, twin.dtype) == (product.shape, dtype)


def test_fisher_products_of_what_is_not_finite(device):
    """A class at -inf has none, whatever its tangent; all else makes the row NaN."""
    logits = torch.tensor(
        [[0, 1, -inf], [-inf, 3, -inf], [0, nan, 1], [0, inf, 1], [-inf] * 3, [0, 1, 2], [0, 1, 2]],
        device=device,
    )
    tangents = torch.tensor(
        [[1, 2, nan], [nan, 1, inf], *[[1, 2, 3]] * 3, [0, nan, 1], [inf, 0, 1]]
    )
    for module in (ops, reference):
        product = module.fisher_product(logits, tangents.to(device))
        finite = torch.tensor([[-1.0, 1, 0], [0, 0, 0]], device=device)
        torch.testing.assert_close(product[:2], finite, rtol=1e-6, atol=0)
        assert product[2:].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e30])
def test_fisher_products_of_any_size(size, dtype, device):
    logits, tangents = pair(5, 12, dtype, device, step=1.0)
    scaled = (tangents.double() * size).to(dtype)
    expected = reference.fisher_product(logits.double(), scaled.double())
    product = ops.fisher_product(logits, scaled).double()
    torch.testing.assert_close(product, expected, rtol=0, atol=max(tolerance(dtype), 1e-6))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cols", [1, 2, 3, 10, 16, 17, 100, 128, 129, 1000, 128256])
@pytest.mark.parametrize("rows", [0, 1, 5, 37])
def test_fisher_directions(rows, cols, dtype, device):
    """Sums of terms of one sign, in some five passes: a few roundings of the row's maximum, 1."""
    if rows * cols > 10**6:
        rows = 2
    logits, _ = pair(rows, cols, dtype, device)
    direction, curvature = ops.fisher_direction(logits)
    assert (direction.shape, direction.dtype) == ((rows, cols), dtype)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    assert (curvature.shape, curvature.dtype) == ((rows,), arithmetic)
    expected = reference.fisher_direction(logits.double())
    near = {"rtol": 0, "atol": tolerance(dtype)}
    torch.testing.assert_close(direction.double(), expected[0], **near)
    near = {"rtol": tolerance(arithmetic), "atol": 0}
    torch.testing.assert_close(curvature.double(), expected[1], **near)
    for twin, mine in zip(reference.fisher_direction(logits), (direction, curvature), strict=True):
        assert (twin.shape, twin.dtype) == (mine.shape, mine.dtype)
    if rows and cols > 1:
        label = ops.posterior_summary(logits)[0]
        assert (direction.gather(1, label.unsqueeze(1)) == -1).all()


def test_fisher_directions_of_what_is_not_finite(device):
    """A class at -inf has an entry of 0, and a class alone one too; all else makes the row NaN."""
    rows = [[0, 1, -inf], [-inf, 3, -inf], [0, nan, 1], [0, inf, 1], [-inf] * 3, [inf, inf, 0]]
    rows += [[-inf, nan, 0], [0, nan, -inf]]
    logits = torch.tensor(rows, device=device)
    for module in (ops, reference):
        direction, curvature = module.fisher_direction(logits)
        finite = torch.tensor([[1.0, -1, 0], [0, 0, 0]], device=device)
        torch.testing.assert_close(direction[:2], finite, rtol=1e-6, atol=0)
        p = torch.sigmoid(torch.tensor(1.0, device=device))
        torch.testing.assert_close(curvature[0], 2 * p * (1 - p), rtol=1e-6, atol=0)
        assert curvature[1] == 0
        assert direction[2:].isnan().all()
        assert curvature[2:].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(0, 5), (3, 0), (5,), (3, 1), (2, 7), (4, 3, 32, 32), (2, 150528)]
)
def test_perturb(shape, dtype, device):
    x = torch.randn(shape).to(device, dtype)
    direction = torch.randn(shape).to(device, dtype)
    if len(x) > 2:
        direction[1] = 0
    out, norm = ops.perturb(x, direction, 0.7, return_norm=True)
    expected, expected_norm = reference.perturb(x, direction, 0.7, return_norm=True)
    atol = {torch.float64: 1e-14, torch.float32: 1e-6}.get(dtype, tolerance(dtype))
    torch.testing.assert_close(out, expected, rtol=tolerance(dtype), atol=atol)
    torch.testing.assert_close(norm, expected_norm, rtol=1e-5, atol=0)
    assert torch.equal(ops.perturb(x, direction, 0.7), out)
    if len(x) > 2 and x.numel():
        assert torch.equal(out[1], x[1])
        assert norm[1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1e-38, 1e-30, 1.0, 1e30])
def test_perturb_normalises_any_size(size, dtype, device):
    direction = torch.tensor([[3.0, 0.0, -4.0], [1.0, 1.0, 1.0]], device=device).double() * size
    x = torch.zeros(2, 3, device=device, dtype=dtype)
    out = ops.perturb(x, direction.to(dtype), 2.0).double()
    expected = torch.tensor([[1.2, 0.0, -1.6], [2 / 3**0.5] * 3], device=device).double()
    # 1e-38 is among float32's subnormals' neighbours: its last place is 1e-7 of it.
    torch.testing.assert_close(out, expected, rtol=max(tolerance(dtype), 1e-6), atol=0)


def test_perturb_smallest_subnormals(device):
    direction = torch.tensor([[1e-45, 0.0], [3e-45, 4e-45]], device=device)
    expected = reference.perturb(torch.zeros_like(direction), direction, 1.0)
    torch.testing.assert_close(ops.perturb(torch.zeros_like(direction), direction, 1.0), expected)


def test_strides(device):
    """Column-major, strided, expanded and misaligned views, and channels_last."""
    a, b = pair(12, 20, device=device)
    expected = ops.symmetric_kl_direction(a, b)
    views = [a.t().contiguous().t(), torch.stack([a, a], dim=2)[:, :, 0]]
    for view in views:
        got = ops.symmetric_kl_direction(view, b)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
    # Off its alignment a row is read in other pieces on CUDA, and its sums round otherwise.
    misaligned = torch.cat([a.flatten()[:1], a.flatten()])[1:].view(12, 20)
    got = ops.symmetric_kl_direction(misaligned, b)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    row = a[:1].expand(12, 20)
    assert torch.equal(ops.posterior_summary(row)[1], ops.posterior_summary(row.contiguous())[1])
    assert torch.equal(
        ops.fisher_product(views[0], b.t().contiguous().t()), ops.fisher_product(a, b)
    )
    assert torch.equal(ops.fisher_direction(views[0])[0], ops.fisher_direction(a)[0])

    x, direction = torch.randn(2, 5, 3, 8, 8, device=device)
    expected = ops.perturb(x, direction, 0.1)
    last = x.to(memory_format=torch.channels_last)
    for d in (direction, direction.to(memory_format=torch.channels_last)):
        got = ops.perturb(last, d, 0.1)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)
        assert got.is_contiguous(memory_format=torch.channels_last)
    got = ops.perturb(x[:, :, ::2], direction[:, :, ::2], 0.1)
    expected = ops.perturb(x[:, :, ::2].contiguous(), direction[:, :, ::2].contiguous(), 0.1)
    assert torch.equal(got, expected)


def test_infinities_and_nan(device):
    """A class absent from both rows adds nothing; one that vanishes or appears makes J infinite."""
    rows = [
        ([0, 1, -inf], [0.5, 1, -inf]),
        ([0, 1, 2], [0, 1, -inf]),
        ([0, 1, 2], [-inf, 1, -inf]),
        ([0, 1, -inf], [0, 1, 1]),
        ([-inf, 1, -inf], [0, 1, 1]),
        ([0, nan, 1], [0, 1, 1]),
        ([0, 1, 2], [0, nan, 2]),
        ([-inf] * 3, [0, 0, 0]),
        ([-inf] * 3, [-inf] * 3),
    ]
    a, b = torch.tensor(rows, device=device).unbind(1)
    value, direction = ops.symmetric_kl_direction(a, b)
    expected = reference.symmetric_kl_direction(a.double(), b.double())
    torch.testing.assert_close(value.double(), expected[0], rtol=1e-6, atol=0, equal_nan=True)
    torch.testing.assert_close(direction.double(), expected[1], rtol=0, atol=1e-6, equal_nan=True)
    assert value[:5].isinf().tolist() == [False, True, True, True, True]
    assert value[5:].isnan().all()
    forward = ops.symmetric_kl(a[3:4], b[3:4], divergence="forward")
    torch.testing.assert_close(
        forward.cpu(), torch.log(torch.tensor([(1 + 2 * 2.718281828) / 3.718281828]))
    )


@pytest.mark.parametrize("cols", [10, 130, 1001])
def test_rows_at_the_bottom_of_the_range(cols, device):
    """-inf throughout is NaN; masked with the lowest finite number it is an ordinary row. Lengths
    that fill no whole register, so that what pads them must not be taken for a class."""
    lowest = torch.finfo(torch.float32).min
    a = torch.zeros(3, cols, device=device)
    a[0], a[1:] = -inf, lowest
    b = a.clone()
    b[0], b[2] = 0, 0
    value, direction = ops.symmetric_kl_direction(a, b)
    expected = reference.symmetric_kl_direction(a.double(), b.double())
    torch.testing.assert_close(value.double(), expected[0], rtol=1e-5, atol=0, equal_nan=True)
    torch.testing.assert_close(direction.double(), expected[1], rtol=0, atol=1e-5, equal_nan=True)
    assert value[0].isnan()
    assert value[1:].tolist() == [0, 0]


@pytest.mark.parametrize("move", [1.0, 25.0, 35.0, 80.0, 200.0])
@pytest.mark.parametrize("cols", [2, 10, 300])
def test_an_argmax_that_moves(cols, move, device):
    """Through every regime of the shift: J grows to the order of the move."""
    a, b = pair(9, cols, device=device)
    b[:, -1] += move
    value, direction = ops.symmetric_kl_direction(a, b)
    expected = reference.symmetric_kl_direction(a.double(), b.double())
    torch.testing.assert_close(value.double(), expected[0], rtol=2e-6, atol=0)
    torch.testing.assert_close(direction.double(), expected[1], rtol=0, atol=1e-5)


def test_invariants(device):
    a, b = pair(50, 12, torch.float64, device)
    value = ops.symmetric_kl(a, b)
    torch.testing.assert_close(ops.symmetric_kl(b, a), value, rtol=1e-12, atol=0)
    shift = torch.randn(50, 1, device=device, dtype=torch.float64)
    torch.testing.assert_close(ops.symmetric_kl(a + shift, b - shift), value, rtol=1e-10, atol=0)
    assert (ops.symmetric_kl(a, a) == 0).all()
    assert (ops.symmetric_kl_direction(a, a)[1] == 0).all()
    order = torch.randperm(50, device=device)
    torch.testing.assert_close(
        ops.symmetric_kl(a[order], b[order]), value[order], rtol=1e-12, atol=0
    )
    classes = torch.randperm(12, device=device)
    shuffled = ops.symmetric_kl(a[:, classes], b[:, classes])
    torch.testing.assert_close(shuffled, value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("how", [{}, {"divergence": "forward"}, {"smoothing": 0.2}], ids=str)
@pytest.mark.parametrize("cols", [2, 7, 140])
def test_gradcheck(cols, how, device):
    a, b = pair(3, cols, torch.float64, device)
    inputs = (a.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(lambda p, q: ops.symmetric_kl(p, q, **how), inputs)


def test_one_gradient_alone_and_expanded_upstream(device):
    a, b = pair(6, 11, device=device)
    both = torch.autograd.grad(
        ops.symmetric_kl(a.requires_grad_(), b.requires_grad_()).sum(), (a, b)
    )
    (only_p,) = torch.autograd.grad(ops.symmetric_kl(a, b.detach()).sum(), a)
    (only_q,) = torch.autograd.grad(ops.symmetric_kl(a.detach(), b).sum(), b)
    torch.testing.assert_close(only_p, both[0])
    torch.testing.assert_close(only_q, both[1])
    weights = torch.randn(6, device=device)
    (weighted,) = torch.autograd.grad((weights * ops.symmetric_kl(a.detach(), b)).sum(), b)
    torch.testing.assert_close(weighted, weights.unsqueeze(1) * both[1])
    apart = torch.stack([weights, -weights], dim=1)[:, 0]
    (strided,) = torch.autograd.grad(ops.symmetric_kl(a.detach(), b), b, apart)
    assert torch.equal(strided, weighted)


def test_double_backward_is_refused(device):
    a, b = pair(3, 5, device=device)
    value = ops.symmetric_kl(a, b.requires_grad_())
    (gradient,) = torch.autograd.grad(value.sum(), b, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once only"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype, device):
    raw = torch.ops.vaal
    a, b = pair(5, 12, dtype, device)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    grad = torch.ones(5, device=device, dtype=arithmetic)
    x = torch.randn(3, 2, 4, 4, device=device).to(dtype)
    index = torch.arange(3, device=device)
    last = x.to(memory_format=torch.channels_last)
    differentiable = (a.requires_grad_(), b.requires_grad_(), 0.0, True)
    torch.library.opcheck(raw.symmetric_kl.default, differentiable)
    a, b = a.detach(), b.detach()
    for need in ((True, True), (False, True)):
        torch.library.opcheck(raw.symmetric_kl_backward.default, (grad, a, b, 0.1, True, *need))
    torch.library.opcheck(raw.symmetric_kl_direction.default, (a, b, 0.0, False))
    torch.library.opcheck(raw.symmetric_kl_direction.default, (a[:0], b[:0], 0.0, True))
    for view in (x, last, x[:, :, ::2]):
        torch.library.opcheck(raw.perturb.default, (view, view * 2, 0.5))
        torch.library.opcheck(raw.random_perturb.default, (view, 0.5, 3, index))
    torch.library.opcheck(raw.posterior_summary.default, (a,))
    torch.library.opcheck(raw.fisher_product.default, (a, b))
    torch.library.opcheck(raw.fisher_product.default, (a[:0], b[:0]))
    torch.library.opcheck(raw.fisher_direction.default, (a,))
    torch.library.opcheck(raw.fisher_direction.default, (a[:0],))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile itself needs a g++")
def test_compile_fullgraph(device):
    def step(a, b, x, index):
        start = ops.random_perturb(x, 0.1, seed=1, sample_index=index)
        value, direction = ops.symmetric_kl_direction(a, b)
        moved = ops.perturb(x, start - x, 0.5)
        label, entropy, margin = ops.posterior_summary(b)
        product = ops.fisher_product(a, b)
        summary = (label, entropy, margin)
        return value, direction, moved, *summary, product, *ops.fisher_direction(b)

    a, b = pair(4, 6, device=device)
    x, index = torch.randn(4, 3, 5, device=device), torch.arange(4, device=device)
    compiled = torch.compile(step, fullgraph=True)
    for got, expected in zip(compiled(a, b, x, index), step(a, b, x, index), strict=True):
        torch.testing.assert_close(got, expected)

    loss = torch.compile(lambda p, q: ops.symmetric_kl(p, q).mean(), fullgraph=True)
    q = b.clone().requires_grad_()
    loss(a, q).backward()
    (expected,) = torch.autograd.grad(ops.symmetric_kl(a, b.requires_grad_()).mean(), b)
    torch.testing.assert_close(q.grad, expected)


@pytest.mark.parametrize(("rows", "cols"), [(3000, 40), (994, 256)])
def test_threads_change_nothing(rows, cols):
    """Of 994 rows the last of 32 threads has two, too few to fill a register by themselves."""
    a, b = pair(rows, cols)
    x, direction = torch.randn(2, 3, 200000)
    index = torch.arange(3)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 32):
            torch.set_num_threads(count)
            results.append(
                (
                    *ops.symmetric_kl_direction(a, b),
                    ops.fisher_product(a, b),
                    *ops.fisher_direction(b),
                    *ops.posterior_summary(b),
                    ops.perturb(x, direction, 1.0),
                    ops.random_perturb(x, 1.0, seed=1, sample_index=index),
                )
            )
    finally:
        torch.set_num_threads(threads)
    for one, *others in zip(*results, strict=True):
        assert all(torch.equal(one, other) for other in others)
