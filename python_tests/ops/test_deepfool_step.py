"""The contract of ops.deepfool_step: shapes, dtypes, strides, edges, compile, errors."""

import pytest
import torch
from test_ops import DTYPES, inf, nan, tolerance

from vaal_ext import ops, reference


def problem(rows, slots, shape, dtype=torch.float32, device="cpu", classes=7):
    generator = torch.Generator().manual_seed(rows + 10 * slots)
    logits = torch.randn(rows, classes, generator=generator).to(dtype)
    own = logits.argmax(1)
    others = torch.rand(rows, classes, generator=generator)
    others = others.scatter(1, own.unsqueeze(1), -1.0)
    gradients = torch.randn(rows, slots, *shape, generator=generator).to(dtype)
    candidates = others.topk(slots, dim=1).indices
    return tuple(tensor.to(device) for tensor in (logits, gradients, own, candidates))


# No sample, one element, both sides of a register, an image, and more than one chunk of a thread.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1,), (15,), (17,), (3, 8, 8), (40_000,)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_deepfool_values(rows, shape, dtype, device):
    """Norms and quotients of few roundings: the tolerances of test_ops.py."""
    logits, gradients, own, candidates = problem(rows, 3, shape, dtype, device)
    nearest, distance, step = ops.deepfool_step(logits, gradients, own, candidates)
    expected = reference.deepfool_step(logits.double(), gradients.double(), own, candidates)
    assert torch.equal(nearest, expected[0])
    assert distance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert step.shape == (rows, *shape)
    assert step.dtype == dtype
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    torch.testing.assert_close(distance.double(), expected[1], rtol=tolerance(exact), atol=0)
    atol = 2.0**-25 if dtype == torch.float16 else 0.0  # half of its smallest number
    torch.testing.assert_close(step.double(), expected[2], rtol=tolerance(dtype), atol=atol)


def test_deepfool_of_a_linear_network_is_the_formula(device):
    """f = Wx: the distance to the boundary between k and l is |(W_k − W_l)·x| / ‖W_k − W_l‖."""
    w = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-5.0, 12.0]], device=device)
    logits = torch.tensor([[2.0, 1.0, -50.0], [2.0, -8.0, 1.0]], device=device)
    own = torch.tensor([0, 0], device=device)
    candidates = torch.tensor([[1, 2], [1, 2]], device=device)
    gradients = (w[1:] - w[0]).expand(2, 2, 2)
    nearest, distance, step = ops.deepfool_step(logits, gradients, own, candidates)
    assert nearest.tolist() == [1, 2]
    torch.testing.assert_close(distance.cpu(), torch.tensor([1 / 5, 1 / 128**0.5]))
    expected = torch.tensor([[-3.0 / 25, -4.0 / 25], [-8.0 / 128, 8.0 / 128]])
    torch.testing.assert_close(step.cpu(), expected)


def test_what_has_no_boundary(device):
    """Ruled out, flat, on the boundary, not finite, no class, the reference itself, too far."""
    logits, gradients, own, candidates = problem(9, 3, (4,), device=device)
    for row in range(9):
        candidates[row], own[row] = torch.tensor([1, 2, 3]), 0
    logits[:, 0], logits[0, 1], logits[2, 1:4] = 5.0, -inf, -inf
    gradients[0, 0], gradients[1] = nan, 0
    logits[3, 2], gradients[4, 1, 2], logits[5, 3] = 5.0, inf, nan
    candidates[6, 1], candidates[7, 1] = 7, 0
    gradients[7, 1] = 0
    gradients[8] = 1e-45
    for backend in (ops, reference):
        nearest, distance, step = backend.deepfool_step(logits, gradients, own, candidates)
        assert nearest[[1, 2, 4, 5, 6, 8]].tolist() == [-1] * 6
        assert distance[[1, 2, 8]].tolist() == [inf] * 3
        assert distance[4:7].isnan().all()
        assert step[4:7].isnan().all()
        assert (nearest[3], distance[3]) == (2, 0)
        assert (step[[1, 2, 3, 8]] == 0).all()
        assert nearest[0] in (2, 3)
        assert nearest[7] in (1, 3)
        assert step[[0, 7]].isfinite().all()
    negative = torch.full_like(candidates, -1)
    assert ops.deepfool_step(logits, gradients, own, negative)[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_first_of_equals_and_any_size(dtype, device):
    """Gradients at both ends of the range give the step of gradients of one, scaled."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([[1.0, 0.0, 0.0]], dtype=dtype, device=device)
    candidates, own = torch.tensor([[2, 1]], device=device), torch.tensor([0], device=device)
    for shape in ((5,), (50_000,)):
        w = torch.randn(shape, generator=generator, dtype=dtype).to(device)
        if len(w) > 5:
            w[:40_000] = 0  # a whole chunk of the CPU's
        length = torch.linalg.vector_norm(w)
        sizes = [1e-30, 1.0, 1e30] + ([1e-280, 1e280] if dtype == torch.float64 else [])
        for size in sizes:
            gradients = (w * size).expand(1, 2, *shape)
            nearest, distance, step = ops.deepfool_step(logits, gradients, own, candidates)
            assert nearest.item() == 2
            unit = torch.linalg.vector_norm(w * size / size)
            assert abs(unit - length) <= 1e-5 * length
            expected = 1 / length.double() / size
            torch.testing.assert_close(distance[0].double(), expected, rtol=1e-5, atol=0)
            direction = step[0].double() / expected
            torch.testing.assert_close(direction, (w / length).double(), rtol=1e-4, atol=1e-6)


def test_deepfool_strides_and_threads(device):
    """Gradients as torch.vmap leaves them, strided, expanded and misaligned."""
    logits, gradients, own, candidates = problem(4, 3, (3, 8, 8), device=device)
    expected = ops.deepfool_step(logits, gradients, own, candidates)
    flat = torch.cat([gradients.flatten()[:1], gradients.flatten()])[1:]
    views = [
        gradients.movedim(1, 0).contiguous().movedim(0, 1),
        torch.stack([gradients, gradients], dim=5)[..., 0],
        gradients.movedim(2, 4).contiguous().movedim(4, 2),
        flat.view(gradients.shape),
    ]
    # Rows of which every second one is misaligned: those of one sample, and those of two.
    for sample, candidate in ((4 * 193, 193), (3 * 192 + 1, 192)):
        strides = (sample, candidate, 64, 8, 1)
        view = gradients.new_empty(4 * sample).as_strided(gradients.shape, strides)
        views.append(view.copy_(gradients))
    for view in views:
        for mine, theirs in zip(
            ops.deepfool_step(logits, view, own, candidates.t().contiguous().t()),
            expected,
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2):
            torch.set_num_threads(count)
            runs.append(ops.deepfool_step(*problem(3, 2, (70_000,), device=device)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_deepfool_opcheck(dtype, device):
    raw = torch.ops.vaal.deepfool_step.default
    for rows in (0, 3):
        logits, gradients, own, candidates = problem(rows, 2, (3, 4, 4), dtype, device)
        for view in (gradients, gradients.transpose(0, 1).contiguous().transpose(0, 1)):
            torch.library.opcheck(raw, (logits, view, own, candidates))


def test_deepfool_compiles(device):
    given = problem(3, 2, (3, 4, 4), device=device)
    compiled = torch.compile(ops.deepfool_step, fullgraph=True)
    for mine, theirs in zip(compiled(*given), ops.deepfool_step(*given), strict=True):
        torch.testing.assert_close(mine, theirs)


L, G, R, K = torch.zeros(2, 3), torch.zeros(2, 2, 4), torch.zeros(2).long(), torch.ones(2, 2).long()
BAD_CALLS = [
    ((L[0], G, R, K), ValueError, r"\[B, C\]"),
    ((L, [1.0], R, K), TypeError, "gradients must be a tensor"),
    ((L, G.double(), R, K), TypeError, "the same dtype"),
    ((L, G.to("meta"), R, K), ValueError, "meta"),
    ((L, G[:1], R, K), ValueError, r"gradients must be \[2, K, ...\]"),
    ((L, G[:, :0], R, K[:, :0]), ValueError, "K >= 1"),
    ((L, G[:, :, :0], R, K), ValueError, "elements in each"),
    ((L, G[:, 0, 0], R, K), ValueError, r"got shape \[2\]"),
    ((L, G, R.int(), K), TypeError, "reference must be an int64 tensor"),
    ((L, G, R[:1], K), ValueError, r"reference must have shape \[2\]"),
    ((L, G, R, K[:, :1]), ValueError, r"candidates must have shape \[2, 2\]"),
    ((L, G.clone().requires_grad_(), R, K), RuntimeError, "no_grad"),
]


@pytest.mark.parametrize(("given", "error", "message"), BAD_CALLS)
def test_deepfool_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        ops.deepfool_step(*given)
