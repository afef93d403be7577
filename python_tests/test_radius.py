"""A radius in proportion to the samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import vaal_ext
from vaal_ext.cli.app import main
from vaal_ext.experiment.loop import RunConfig, run
from vaal_ext.radius import lengths_for, radius_of_all, rms_length
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


def test_the_radius_of_all_samples_does_not_depend_on_how_they_are_cut():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 4, 5, generator=generator)
    assert rms_length(x) != rms_length(x[:2000])
    parts = x[torch.randperm(3000, generator=generator)].split([100, 1500, 1400])
    assert radius_of_all(parts) == radius_of_all([x]) == float(f"{0.02 * rms_length(x):.3g}")
    with pytest.raises(ValueError, match="0 throughout"):
        radius_of_all([torch.zeros(3, 2), torch.zeros(1, 2)])


SMALL = {
    "rounds": 1, "initial": 4, "query_size": 2, "steps": 2, "device": "cpu", "backend": "reference",
}  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, float]:
    """A data set whose split the seed draws, and a fiftieth of the length of its samples."""
    x = torch.randn(90, 7, generator=torch.Generator().manual_seed(0))
    x *= torch.arange(1, 91)[:, None]
    np.savez(tmp_path / "own.npz", x=x.numpy(), y=np.arange(90) % 3)
    return f"npz:{tmp_path / 'own.npz'}", float(f"{0.02 * rms_length(x):.3g}")


def settings_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())["config"]


def test_a_run_on_ones_own_data_measures_its_radius(own, tmp_path, capsys):
    dataset, eps = own
    assert eps > 1
    for seed in (0, 1):  # alike, so that a report averages them
        run(RunConfig(dataset, "vaal", seed=seed, **SMALL), tmp_path / f"r{seed}")
        assert settings_of(tmp_path / f"r{seed}")["eps"] == eps
        assert f", eps {eps:g} (a fiftieth of the samples' length)\n" in capsys.readouterr().out
    steps = {"method": "finite-difference", "num_iters": 1}
    for name, given, lengths in (
        ("a", steps, (eps, float(f"{eps / 10:.3g}"))),
        ("b", {"eps": 0.5, **steps}, (0.5, 0.05)),
        ("c", {"xi": 0.3, **steps}, (eps, 0.3)),
        ("d", {"eps": 0.5}, (0.5, None)),
    ):
        run(RunConfig(dataset, "vaal", **given, **SMALL), tmp_path / name, progress=False)
        saved = settings_of(tmp_path / name)
        assert (saved["eps"], saved["xi"]) == lengths
    for name, strategy in ((dataset, "random"), ("moons", "vaal")):  # as the table has them
        run(RunConfig(name, strategy, **SMALL), tmp_path / strategy)
        assert settings_of(tmp_path / strategy)["eps"] == settings_for(name).eps
        assert "fiftieth" not in capsys.readouterr().out


def test_a_begun_run_keeps_its_radius(own, tmp_path, capsys):
    """One that an earlier version began has 0.1, and is told no other length."""
    for dataset, folder in ((own[0], tmp_path / "own"), ("moons", tmp_path / "moons")):
        run(RunConfig(dataset, "vaal", eps=0.1, **SMALL), folder, progress=False)
        run(RunConfig(dataset, "vaal", **SMALL), folder)
        assert "finished before" in (out := capsys.readouterr().out)
        assert "fiftieth" not in out
        with pytest.raises(ValueError, match=r"eps is 0\.1 there and 0\.3 here"):
            run(RunConfig(dataset, "vaal", eps=0.3, **SMALL), folder, progress=False)


def test_data_without_a_length_need_one_given(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.savez("zero.npz", x=np.zeros((40, 3)), y=np.arange(40) % 2)
    assert main(["run", "--dataset", "npz:zero.npz", "--strategy", "vaal", "--out", "run"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "eps cannot be measured, the samples must not be 0 throughout" in line
    assert not Path("run").exists()


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
