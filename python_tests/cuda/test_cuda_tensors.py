"""The tensor code of csrc/cuda over an emulated runtime and emulated kernels (runtime.cpp).

The tests of python_tests/ops run through it as well, and hold what it computes. Here stands what no
result shows: what is launched and for which device, what is refused, whose errors are asked for.
"""

from __future__ import annotations

import pytest
import torch
from emulation.device_ops import (
    ALL_OPS,
    current_device,
    emulated_ops,
    launches,
    launches_refused,
    on_the_other_device,
)
from emulation.harness import needs_compiler

from vaal_ext import _C

pytestmark = needs_compiler
raw = torch.ops.vaal

# Rows and columns for every path of an H100, in float32; a device of one multiprocessor streams the
# long rows of logits.
SHAPES = {"warp": (5, 20), "block": (3, 1001), "split": (4, 12_501)}
STREAMED = ("fisher_product", "fisher_direction", "symmetric_kl_backward")  # the last is smoothed


def arguments(op, rows, cols):
    """What the raw op takes, float32 and dense."""
    x, y = torch.randn(2, rows, cols, generator=torch.Generator().manual_seed(cols))
    index, grad = torch.arange(rows), torch.linspace(-1, 1, rows)
    return {
        "symmetric_kl": (x, y, 0.0, True),
        "symmetric_kl_direction": (x, y, 0.0, False),
        "symmetric_kl_backward": (grad, x, y, 0.1, True, True, True),
        "perturb": (x, y, 0.5),
        "random_perturb": (x, 0.5, 7, index),
        "posterior_summary": (x,),
        "fisher_product": (x, y),
        "fisher_direction": (x,),
        "deepfool_step": (
            x[:, :3].contiguous(),
            torch.stack([x, y], 1),
            torch.zeros_like(index),
            torch.tensor([[1, 2]]).repeat(rows, 1),
        ),
    }[op]


def tensors(given):
    return [x for x in given if isinstance(x, torch.Tensor)]


def results(op, given):
    found = getattr(raw, op)(*given)
    return (found,) if isinstance(found, torch.Tensor) else found


@pytest.fixture
def device_ops():
    """The ops on an emulated H100, on which all tensors lie."""
    with emulated_ops():
        yield


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("op", ALL_OPS)
def test_each_op_launches_its_plan(op, path):
    """On the H100 that _C.launch_plan is of; results as on the CPU, within 400 ulps."""
    rows, cols = SHAPES[path]
    given = arguments(op, rows, cols)
    plan = _C.launch_plan(
        op,
        2 * rows if op == "deepfool_step" else rows,
        cols,
        "float32",
        smoothed=op == "symmetric_kl_backward",
    )
    assert plan["path"] == path or (op in STREAMED and plan["path"] == "stream")
    expected = results(op, given)
    with emulated_ops():
        found = results(op, given)
        first, *_ = launches()
    assert first == (0, plan["blocks"], plan["block_threads"], plan["shared_bytes"])
    torch.testing.assert_close(found, expected, rtol=400 * 2.0**-23, atol=1e-5)


@pytest.mark.parametrize("op", ALL_OPS)
def test_the_plan_is_that_of_the_tensors_device(op, device_ops):
    """The other device has one multiprocessor and hardly any shared memory. Afterwards the caller's
    device is the current one again."""
    given = arguments(op, *SHAPES["split"])
    here = results(op, given)
    on_the_first = launches()
    with on_the_other_device(*tensors(given)):
        there = results(op, given)
        on_the_second = launches()
    assert current_device() == 0
    assert {device for device, *_ in on_the_first} == {0}
    assert {device for device, *_ in on_the_second} == {1}
    assert [shape for _, *shape in on_the_first] != [shape for _, *shape in on_the_second]
    torch.testing.assert_close(there, here, rtol=400 * 2.0**-23, atol=1e-5)


PLACES = [
    (op, place)
    for op in ALL_OPS
    for place, x in enumerate(arguments(op, 2, 3))
    if isinstance(x, torch.Tensor)
]
LYING = {
    "misaligned": lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape),
    "strided": lambda x: torch.stack([x, -x], dim=-1)[..., 0],
}


@pytest.mark.parametrize("how", LYING)
@pytest.mark.parametrize(("op", "place"), PLACES)
def test_each_tensor_may_lie_in_any_way(op, place, how, device_ops):
    """Rows of whole packs, which are read as such where they can be: else sums round otherwise."""
    given = list(arguments(op, 3, 32))
    expected = results(op, given)
    given[place] = LYING[how](given[place])
    torch.testing.assert_close(results(op, given), expected, rtol=400 * 2.0**-23, atol=1e-5)


@pytest.mark.parametrize(("op", "place"), PLACES)
def test_tensors_on_two_devices_are_refused(op, place, device_ops):
    given = tuple(x.clone() if isinstance(x, torch.Tensor) else x for x in arguments(op, 2, 3))
    if len(tensors(given)) == 1:
        return
    with on_the_other_device(given[place]), pytest.raises(RuntimeError, match="vaal: "):
        results(op, given)
    assert current_device() == 0
    assert launches() == []


@pytest.mark.parametrize("op", ALL_OPS)
def test_a_launch_that_fails_is_an_error(op, device_ops):
    given = arguments(op, 2, 3)
    with launches_refused(), pytest.raises(RuntimeError, match="CUDA error"):
        results(op, given)
    results(op, given)
    assert len(launches()) > 0


@pytest.mark.parametrize("op", ALL_OPS)
def test_nothing_is_launched_for_nothing(op, device_ops):
    found = results(op, arguments(op, 0, 5))
    assert all(x.shape[0] == 0 for x in found)
    assert launches() == []
    if op in ("perturb", "random_perturb"):
        results(op, arguments(op, 3, 0))
        assert launches() == []
