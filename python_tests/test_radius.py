"""A radius in proportion to the samples."""

from __future__ import annotations

import pytest
import torch

import vaal_ext
from vaal_ext.radius import rms_length


def test_the_length_by_hand():
    x = torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]])  # lengths 5 and 1
    assert rms_length(x) == pytest.approx(13**0.5)
    assert vaal_ext.small_radius(x) == pytest.approx(0.02 * 13**0.5)
    assert rms_length(torch.tensor([3.0, -4.0])) == pytest.approx(12.5**0.5)  # a number a sample


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_it_scales_with_the_data_and_does_not_overflow(dtype):
    x = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert vaal_ext.small_radius(200 * x) == pytest.approx(200 * vaal_ext.small_radius(x), rel=2e-3)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([1.0], TypeError, "x must be a tensor"),
        (torch.ones(3, 2, dtype=torch.int64), TypeError, "x must be floating point"),
        (torch.ones(0, 2), ValueError, "at least one sample, got none"),
        (torch.tensor([[1.0], [torch.nan]]), ValueError, "x must be finite"),
        (torch.tensor([[1.0], [torch.inf]]), ValueError, "x must be finite"),
        (torch.zeros(3, 2), ValueError, "0 throughout"),
    ],
)
def test_bad_input(x, error, message):
    with pytest.raises(error, match=message):
        vaal_ext.small_radius(x)
