"""A radius in proportion to the samples."""

from __future__ import annotations

from typing import get_type_hints

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import vaal_ext
from vaal_ext.cli.run import run
from vaal_ext.radius import lengths_for, rms_length
from vaal_ext.settings import settings_for


def test_the_length_by_hand():
    x = torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]])  # lengths 5 and 1
    assert rms_length(x) == pytest.approx(13**0.5)
    assert vaal_ext.small_radius(x) == pytest.approx(0.02 * 13**0.5)
    assert rms_length(torch.tensor([3.0, -4.0])) == pytest.approx(12.5**0.5)  # a number a sample


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_it_scales_with_the_data_and_does_not_overflow(dtype):
    x = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert vaal_ext.small_radius(200 * x) == pytest.approx(200 * vaal_ext.small_radius(x), rel=2e-3)


class Counted(Dataset):
    """Samples [2] sorted by length, i at position i; it counts what is read."""

    def __init__(self, n):
        self.n, self.read = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, position):
        self.read.append(position)
        return torch.tensor([float(position), 0.0]), 1


def test_it_takes_what_score_takes():
    x = torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = vaal_ext.small_radius(x)
    rows = DataLoader([{"x": row} for row in x], collate_fn=_stacked)
    labelled = TensorDataset(x, torch.zeros(40))
    for pool in (x.numpy(), labelled, DataLoader(x, batch_size=7, shuffle=True), rows):
        assert vaal_ext.small_radius(pool) == pytest.approx(expected, rel=1e-12)  # sums in float64


def _stacked(rows):
    return torch.stack([row["x"] for row in rows])


def test_it_reads_some_samples_spread_over_the_pool_and_draws_nothing():
    pool = Counted(10_000)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    radius = vaal_ext.small_radius(pool)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(pool.read) == len(set(pool.read)) == 256
    # The root mean square of 0..9999 is 9999/sqrt(3); steps of 39 end up to 39 before the end.
    assert radius == pytest.approx(0.02 * 9999 / 3**0.5, rel=0.01)
    mapped = np.broadcast_to(np.arange(10_000, dtype=np.float32)[:, None], (10_000, 1))
    assert vaal_ext.small_radius(mapped) == pytest.approx(radius, rel=1e-6)
    again = Counted(10_000)
    assert vaal_ext.small_radius(DataLoader(again, sampler=range(3))) == radius
    assert again.read == pool.read


def test_pixels():
    pixels = torch.full((5, 3, 2, 2), 255, dtype=torch.uint8)
    # (1 - 0.5)/0.25 = 2 in each of 12 numbers
    assert vaal_ext.small_radius(pixels, normalize=(0.5, 0.25)) == pytest.approx(0.02 * 48**0.5)
    with pytest.raises(TypeError, match="normalize"):
        vaal_ext.small_radius(pixels)
    with pytest.raises(TypeError, match="uint8"):
        vaal_ext.small_radius(pixels.float(), normalize=(0, 1))


def test_run_says_which_length_it_takes_on_ones_own_data():
    (option,) = get_type_hints(run, include_extras=True)["eps"].__metadata__
    assert settings_for("npz:x.npz").eps == settings_for("folder:x").eps == 0.1
    assert "for npz: and folder: 0.1 unless given" in option.help


def test_lengths_that_can_be_given_again():
    x = torch.full((5, 7), 1.23456)  # 0.02 * 1.23456 * sqrt(7) = 0.065327
    assert lengths_for(x, None, None) == (0.0653, 0.00653)
    assert lengths_for(x, None, 0.5) == (0.0653, 0.5)
    assert lengths_for(None, 0.123456, None) == (0.123456, 0.0123)  # what is given stays
    assert lengths_for(None, 2.0, 1.0) == (2.0, 1.0)
    pixels = torch.full((5, 3, 2, 2), 255, dtype=torch.uint8)
    # As the network sees them: 0.02 * sqrt(48) = 0.13856
    assert lengths_for(pixels, None, None, normalize=(0.5, 0.25)) == (0.139, 0.0139)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (1.0, TypeError, "the pool must be a tensor, an array"),
        (["a"], TypeError, "must be a tensor"),
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
