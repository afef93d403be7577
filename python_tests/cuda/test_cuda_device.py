"""The CUDA kernels on a device: every launch path, graphs, streams, a second device.

test_ops.py runs opcheck, gradcheck, torch.compile and the edge cases on the device as well.
VAAL_TEST_DEVICE=cpu rehearses what needs no CUDA device here.
"""

from __future__ import annotations

import os

import pytest
import torch

from vaal_ext import _C, ops

DEVICE = torch.device(os.environ.get("VAAL_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"
    ),
]
needs_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="a rehearsal on another device")
needs_two_devices = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="there is no second CUDA device"
)

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
STORED = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}  # half an ulp of the storage
# path → rows and columns, whole packs and not, for every type. The stream path is for rows that
# are more than half the multiprocessors; the largest GPUs have fewer than 200.
LOGITS = {
    "warp": [(300, 3), (40, 16), (7, 31)],
    "block": [(5, 1000), (3, 701)],
    "stream": [(200, 4000), (200, 40_001)],
    "split": [(2, 70_000), (1, 70_001)],
}
SAMPLES = {
    "warp": [(300, 3), (40, 32), (7, 31)],
    "block": [(5, 3072), (3, 785)],
    "split": [(2, 150_528), (1, 600_001)],
}
LOGIT_CASES = [(path, *shape) for path, shapes in LOGITS.items() for shape in shapes]
SAMPLE_CASES = [(path, *shape) for path, shapes in SAMPLES.items() for shape in shapes]
HOW = ({}, {"divergence": "forward"}, {"smoothing": 0.1})


def roundoff(dtype):
    """Unit roundoff of the arithmetic, half an ulp of 1."""
    return 2.0**-53 if dtype == torch.float64 else 2.0**-24


def planned_path(op, rows, cols, dtype):
    return _C.launch_plan(op, rows, cols, str(dtype).removeprefix("torch."))["path"]


def misaligned(x):
    """The same numbers one element past a multiple of 16 bytes, contiguous."""
    storage = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
    return storage[1:].view(x.shape).copy_(x)


def logits(rows, cols, dtype):
    generator = torch.Generator().manual_seed(rows + cols)
    p = 3 * torch.randn(rows, cols, generator=generator, dtype=torch.float64)
    q = p + 0.3 * torch.randn(rows, cols, generator=generator, dtype=torch.float64)
    return p.to(dtype), q.to(dtype)


def assert_rows_near(mine, theirs, bound):
    """‖mine − theirs‖ <= bound·‖theirs‖ for every row; NaN is near nothing."""
    mine, theirs = mine.cpu().double(), theirs.double()
    if mine.ndim == 1:
        mine, theirs = mine[:, None], theirs[:, None]
    difference = torch.linalg.vector_norm(mine - theirs, dim=1)
    assert (difference <= bound * torch.linalg.vector_norm(theirs, dim=1)).all()


# Both back ends are held to the float64 reference by tests on the CPU: the KL within 400 roundoffs
# (test_cuda_emulation_kl.py, test_cpu_kernels.py). So they are at most 800 roundoffs, 400 ulps,
# apart, and one rounding each of what is stored in a half type.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("path", "rows", "cols"), LOGIT_CASES)
def test_kl_as_on_the_cpu(path, rows, cols, dtype):
    assert planned_path("symmetric_kl_direction", rows, cols, dtype) == path
    p, q = logits(rows, cols, dtype)
    near, stored = 800 * roundoff(dtype), 800 * roundoff(dtype) + 2 * STORED.get(dtype, 0)
    # Where the smallest number of the type is not far below a row's gradient, it shows.
    floor = 2 * 2.0**-24 * cols**0.5 if dtype == torch.float16 else 0.0
    for move in (torch.Tensor.to, lambda x, device: misaligned(x.to(device))):
        a, b = (move(x, DEVICE).detach().requires_grad_() for x in (p, q))
        c, d = (x.detach().requires_grad_() for x in (p, q))
        for how in HOW:
            value, direction = ops.symmetric_kl_direction(a.detach(), b.detach(), **how)
            expected = ops.symmetric_kl_direction(p, q, **how)
            assert_rows_near(value, expected[0], near)
            assert_rows_near(direction, expected[1], stored)
            mine, theirs = ops.symmetric_kl(a, b, **how), ops.symmetric_kl(c, d, **how)
            assert_rows_near(mine.detach(), theirs.detach(), near)
            grads = torch.autograd.grad(mine.sum(), (a, b))
            for got, want in zip(grads, torch.autograd.grad(theirs.sum(), (c, d)), strict=True):
                size = torch.linalg.vector_norm(want.double(), dim=1)
                error = torch.linalg.vector_norm(got.cpu().double() - want.double(), dim=1)
                assert (error <= stored * size + floor).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("path", "rows", "cols"), LOGIT_CASES)
def test_posterior_summary_as_on_the_cpu(path, rows, cols, dtype):
    """800 roundoffs, 400 ulps, like the KL; of 1 for the margin, a difference of probabilities."""
    assert planned_path("posterior_summary", rows, cols, dtype) in (path, "block")
    p, _ = logits(rows, cols, dtype)
    label, entropy, margin = ops.posterior_summary(p)
    for x in (p.to(DEVICE), misaligned(p.to(DEVICE))):
        mine = ops.posterior_summary(x)
        assert torch.equal(mine[0].cpu(), label)
        assert_rows_near(mine[1], entropy, 800 * roundoff(dtype))
        assert ((mine[2].cpu() - margin).abs() <= 800 * roundoff(dtype)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("path", "rows", "cols"), LOGIT_CASES)
def test_fisher_product_as_on_the_cpu(path, rows, cols, dtype):
    """Each is within 64 roundoffs of the reference, so 128 apart, and one rounding each stored."""
    assert planned_path("fisher_product", rows, cols, dtype) in (path, "stream")
    p, q = logits(rows, cols, dtype)
    expected = ops.fisher_product(p, q)
    for move in (torch.Tensor.to, lambda x, device: misaligned(x.to(device))):
        product = ops.fisher_product(move(p, DEVICE), move(q, DEVICE))
        assert_rows_near(product, expected, 128 * roundoff(dtype) + 2 * STORED.get(dtype, 0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("path", "rows", "cols"), LOGIT_CASES)
def test_fisher_direction_as_on_the_cpu(path, rows, cols, dtype):
    """Each is within 64 roundoffs of the reference, so 128 apart, and one rounding each stored."""
    assert planned_path("fisher_direction", rows, cols, dtype) in (path, "stream")
    p, _ = logits(rows, cols, dtype)
    expected = ops.fisher_direction(p)
    for move in (torch.Tensor.to, lambda x, device: misaligned(x.to(device))):
        direction, curvature = ops.fisher_direction(move(p, DEVICE))
        slack = 128 * roundoff(dtype)
        assert_rows_near(direction, expected[0], slack + 2 * STORED.get(dtype, 0))
        assert_rows_near(curvature.unsqueeze(1), expected[1].unsqueeze(1), slack)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("path", "rows", "size"), SAMPLE_CASES)
def test_steps_as_on_the_cpu(path, rows, size, dtype):
    """Each is within 64 roundoffs of the step of the reference (test_cuda_emulation.py).

    So they are at most 128 apart, 64 ulps, and one rounding each of x + step.
    """
    assert planned_path("perturb", rows, size, dtype) == path
    assert planned_path("random_perturb", rows, size, dtype) == path
    x, d = torch.randn(2, rows, size, generator=torch.Generator().manual_seed(size)).to(dtype)
    index = torch.arange(rows) * 2**33
    out, norm = ops.perturb(x, d, 0.5, return_norm=True)
    noisy = ops.random_perturb(x, 0.5, seed=2**40 + 1, sample_index=index)
    half_ulp = STORED.get(dtype, roundoff(dtype))
    slack = 128 * roundoff(dtype) * 0.5 + 2 * half_ulp * (x.double().abs() + 0.5)
    for move in (torch.Tensor.to, lambda t, device: misaligned(t.to(device))):
        mine = ops.perturb(move(x, DEVICE), move(d, DEVICE), 0.5, return_norm=True)
        assert ((mine[0].cpu().double() - out.double()).abs() <= slack).all()
        assert_rows_near(mine[1], norm, 128 * roundoff(dtype))
        mine = ops.random_perturb(
            move(x, DEVICE), 0.5, seed=2**40 + 1, sample_index=index.to(DEVICE)
        )
        assert ((mine.cpu().double() - noisy.double()).abs() <= slack).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("path", "rows", "size"), SAMPLE_CASES)
def test_deepfool_step_as_on_the_cpu(path, rows, size, dtype):
    """Each is within 32 roundoffs of the reference (test_cuda_emulation_deepfool.py), and one
    rounding of the storage; float16's smallest numbers are half of one off."""
    assert planned_path("deepfool_step", 2 * rows, size, dtype) in (path, "block")
    generator = torch.Generator().manual_seed(size)
    scores = torch.randn(rows, 3, generator=generator).to(dtype)
    gradients = torch.randn(rows, 2, size, generator=generator).to(dtype)
    own = scores.argmax(1)
    others = torch.stack([(own + 1) % 3, (own + 2) % 3], dim=1)
    nearest, distance, step = ops.deepfool_step(scores, gradients, own, others)
    half_ulp = STORED.get(dtype, roundoff(dtype))
    slack = 64 * roundoff(dtype) * distance.double().unsqueeze(1)
    slack = slack + 2 * half_ulp * step.double().abs()
    slack = slack + (2.0**-24 if dtype == torch.float16 else 0.0)
    lying = gradients.transpose(0, 1).contiguous().to(DEVICE).transpose(0, 1)
    for w in (gradients.to(DEVICE), lying, misaligned(gradients.to(DEVICE))):
        mine = ops.deepfool_step(scores.to(DEVICE), w, own.to(DEVICE), others.to(DEVICE))
        assert torch.equal(mine[0].cpu(), nearest)
        assert_rows_near(mine[1], distance, 64 * roundoff(dtype))
        assert ((mine[2].cpu().double() - step.double()).abs() <= slack).all()


def deepfool_towards_one(x, w):
    classes = torch.ones(len(x), 1, dtype=torch.int64, device=x.device)
    return ops.deepfool_step(x[:, :2].contiguous(), w.unsqueeze(1), classes[:, 0] - 1, classes)


def kl_and_gradients(p, q):
    value = ops.symmetric_kl(p, q)
    return (value, *torch.autograd.grad(value.sum(), (p, q)))


# name → the op on tensors, and tensors for it: long rows, so that split paths with their workspace
# are among them.
CALLS = {
    "symmetric_kl and backward": (kl_and_gradients, lambda: logits(40, 1000, torch.float32)),
    "symmetric_kl_direction": (
        lambda p, q: ops.symmetric_kl_direction(p, q, smoothing=0.1),
        lambda: logits(2, 70_001, torch.float32),
    ),
    "posterior_summary": (
        lambda p, _: ops.posterior_summary(p),
        lambda: logits(2, 70_001, torch.float32),
    ),
    "fisher_product": (
        lambda p, q: (ops.fisher_product(p, q),),
        lambda: logits(2, 70_001, torch.float32),
    ),
    "fisher_direction": (
        lambda p, _: ops.fisher_direction(p),
        lambda: logits(2, 70_001, torch.float32),
    ),
    "perturb": (
        lambda x, d: (ops.perturb(x, d, 0.5),),
        lambda: torch.randn(2, 3, 150_528).unbind(),
    ),
    "deepfool_step": (deepfool_towards_one, lambda: torch.randn(2, 3, 150_528).unbind()),
    "random_perturb": (
        lambda x, index: (ops.random_perturb(x, 0.5, seed=3, sample_index=index.long()),),
        lambda: (torch.randn(3, 150_528), torch.randint(2**20, (3,)).float()),
    ),
}


def given(name):
    """The call's inputs on the device; leaves that may require a gradient where it wants one."""
    function, make = CALLS[name]
    with_gradient = function is kl_and_gradients
    return tuple(x.to(DEVICE).requires_grad_(with_gradient) for x in make())


@pytest.mark.parametrize("name", CALLS)
def test_results_repeat_bit_for_bit(name):
    torch.manual_seed(0)
    inputs = given(name)
    first = CALLS[name][0](*inputs)
    for _ in range(3):
        again = CALLS[name][0](*inputs)
        assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


@needs_cuda
@pytest.mark.parametrize("name", CALLS)
def test_a_captured_graph_follows_its_inputs(name):
    torch.manual_seed(0)
    function = CALLS[name][0]
    inputs, others = given(name), [given(name) for _ in range(2)]
    before = torch.cuda.Stream()
    before.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(before):
        function(*inputs)  # what is set up once must not be captured
    torch.cuda.current_stream().wait_stream(before)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(*inputs)
    for other in others:
        with torch.no_grad():
            for here, new in zip(inputs, other, strict=True):
                here.copy_(new)
        graph.replay()
        expected = function(*other)
        assert all(torch.equal(x, y) for x, y in zip(outputs, expected, strict=True))


@needs_cuda
@pytest.mark.parametrize("name", CALLS)
def test_kernels_run_on_the_current_stream(name):
    """The inputs come into being behind a long wait on the side stream, which only it sees."""
    torch.manual_seed(0)
    function = CALLS[name][0]
    inputs, new = given(name), given(name)
    expected = function(*new)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # cycles: about a tenth of a second
        with torch.no_grad():
            for here, later in zip(inputs, new, strict=True):
                here.copy_(later)
        outputs = function(*inputs)
    side.synchronize()
    assert all(torch.equal(x, y) for x, y in zip(outputs, expected, strict=True))


@needs_cuda
@needs_two_devices
@pytest.mark.parametrize("name", CALLS)
def test_a_second_device_while_the_first_is_current(name):
    torch.manual_seed(0)
    function, inputs = CALLS[name][0], given(name)
    expected = function(*inputs)
    there = tuple(x.detach().to("cuda:1").requires_grad_(x.requires_grad) for x in inputs)
    with torch.cuda.device(0):
        outputs = function(*there)
        assert torch.cuda.current_device() == 0
    for mine, theirs in zip(outputs, expected, strict=True):
        assert mine.device == torch.device("cuda:1")
        # Two devices of one kind plan alike; of two kinds the splits, and so the roundings, differ.
        torch.testing.assert_close(mine.cpu(), theirs.cpu(), rtol=400 * 2.0**-23, atol=1e-6)


@needs_cuda
def test_tensors_on_two_devices_are_refused():
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match="same device"):
        ops.perturb(x.to(DEVICE), x, 0.5)
    with pytest.raises(ValueError, match="same device"):
        ops.symmetric_kl(x, x.to(DEVICE))
