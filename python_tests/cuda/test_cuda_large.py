"""Tensors of more than 2^31 elements on a CUDA device, where an index of 32 bits would come round.

VAAL_TEST_DEVICE=cpu rehearses the same on fewer elements.
"""

from __future__ import annotations

import os

import pytest
import torch

from vaal_ext import ops

DEVICE = torch.device(os.environ.get("VAAL_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"
    ),
]
FEWER = 1 if DEVICE.type == "cuda" else 2**10  # divides the sizes below
TYPE = {"dtype": torch.bfloat16, "device": DEVICE}


@pytest.fixture(autouse=True)
def memory():
    """Skips without 28 GiB on the device; gives back what the test took."""
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(DEVICE)[0] / 2**30
        if free < 28:
            pytest.skip(f"needs 28 GiB on the device, {free:.0f} are free")
    yield
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def integers(count, *shape):
    """0 to count - 1 at random; below 256 bfloat16 holds them all."""
    return torch.randint(count, shape, **TYPE)


def test_three_long_samples():
    """Of 2^30 signs the norm is 2^15: the step moves each element by one, without rounding."""
    rows, cols = 3, 2**30 // FEWER
    torch.manual_seed(0)
    x, d = integers(60, rows, cols), integers(2, rows, cols).mul_(2).sub_(1)
    moved, norm = ops.perturb(x, d, cols**0.5, return_norm=True)
    assert norm.tolist() == pytest.approx([cols**0.5] * rows, rel=64 * 2.0**-24)
    assert torch.equal(moved, x.add_(d))


def test_many_rows_of_classes():
    """The last rows, which lie behind 2^31 elements, are as they are alone."""
    rows, cols, last = 2**21 // FEWER + 5, 1024, 8
    torch.manual_seed(0)
    p = integers(9, rows, cols)
    q = p + integers(2, rows, cols)
    value, direction = ops.symmetric_kl_direction(p, q)
    alone = ops.symmetric_kl_direction(p[-last:].clone(), q[-last:].clone())
    # Two sums of the same terms, perhaps in another order, and one rounding each to bfloat16.
    torch.testing.assert_close(value[-last:], alone[0], rtol=800 * 2.0**-24, atol=0)
    torch.testing.assert_close(direction[-last:], alone[1], rtol=2.0**-7, atol=800 * 2.0**-24)
