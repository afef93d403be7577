"""The data sets, what their files must hold, and the networks that they get."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from vaal_ext.experiment.datasets.load import load_dataset, load_pool
from vaal_ext.experiment.training import model_for
from vaal_ext.models import MLP, PaperCNN


def assert_well_formed(data):
    shape = data.train_x.shape[1:]
    for part in ("train", "val", "test"):
        x, y = getattr(data, f"{part}_x"), getattr(data, f"{part}_y")
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.shape[1:] == shape
        assert len(x) == len(y) > 0
        assert torch.isfinite(x).all()
        assert int(y.min()) >= 0
        assert int(y.max()) < data.num_classes


@pytest.mark.parametrize("name", ["moons", "circles"])
def test_toy_sets_are_the_papers(name):
    data = load_dataset(name, seed=3)
    assert_well_formed(data)
    assert (len(data.train_y), len(data.test_y), data.num_classes) == (800, 200, 2)
    everything = torch.cat([data.train_y, data.val_y, data.test_y])
    assert everything.bincount().tolist() == [600, 600]
    again, other = load_dataset(name, seed=3), load_dataset(name, seed=4)
    assert torch.equal(data.train_x, again.train_x)
    assert not torch.equal(data.train_x, other.train_x)


def test_moons_lie_on_two_arcs_and_circles_on_two_orbits():
    moons = load_dataset("moons")
    centre = torch.where(moons.train_y[:, None] == 0, torch.zeros(2), torch.tensor([1.0, 0.5]))
    offset = moons.train_x - centre
    torch.testing.assert_close(offset.norm(dim=1), torch.ones(800))
    assert ((offset[:, 1] >= -1e-6) == (moons.train_y == 0)).all()
    circles = load_dataset("circles")
    radius = circles.train_x.norm(dim=1)
    torch.testing.assert_close(radius, torch.where(circles.train_y == 0, 1.0, 0.8))


def test_digits():
    data = load_dataset("digits")
    assert_well_formed(data)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (1000, 297, 500)
    assert data.train_x.shape[1:] == (1, 8, 8)
    assert data.num_classes == 10
    assert data.train_x.min() == 0
    assert data.train_x.max() == 1
    # One split for all seeds, and no image in two parts of it (the images are all distinct).
    assert torch.equal(data.test_x, load_dataset("digits", seed=9).test_x)
    images = torch.cat([data.train_x, data.val_x, data.test_x]).flatten(1)
    assert len(images.unique(dim=0)) == 1797


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(50, 3)), "y": rng.integers(0, 4, 50)}


def load_npz(path: Path, arrays: dict, **settings):
    np.savez(path, **arrays)
    return load_dataset(f"npz:{path}", **settings)


def test_npz_with_everything_is_taken_as_it_stands(tmp_path, arrays):
    arrays |= {"x_val": arrays["x"][:5], "y_val": arrays["y"][:5]}
    arrays |= {"x_test": arrays["x"][5:9], "y_test": np.full(4, 6)}
    data = load_npz(tmp_path / "a.npz", arrays)
    assert_well_formed(data)
    np.testing.assert_array_equal(data.train_x.numpy(), arrays["x"].astype(np.float32))
    np.testing.assert_array_equal(data.val_y.numpy(), arrays["y"][:5])
    assert data.num_classes == 7
    assert len(data.test_y) == 4


def test_npz_without_test_set_is_split(tmp_path, arrays):
    data = load_npz(tmp_path / "a.npz", arrays, seed=1)
    assert_well_formed(data)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (36, 4, 10)
    parts = torch.cat([data.train_x, data.val_x, data.test_x])
    assert len(parts.unique(dim=0)) == 50
    # The pool keeps the file's order.
    position = [
        np.flatnonzero((arrays["x"].astype("f4") == x).all(1))[0] for x in data.train_x.numpy()
    ]
    assert position == sorted(position)
    again = load_npz(tmp_path / "a.npz", arrays, seed=1)
    other = load_npz(tmp_path / "a.npz", arrays, seed=2)
    assert torch.equal(data.test_x, again.test_x)
    assert not torch.equal(data.test_x, other.test_x)


def test_npz_bytes_are_pixels(tmp_path):
    x = np.full((20, 2, 2), 255, dtype=np.uint8)
    data = load_npz(tmp_path / "a.npz", {"x": x, "y": np.zeros(20, dtype=np.uint8)})
    assert data.train_x.unique().tolist() == [1.0]
    assert data.num_classes == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, "must have the key 'y', it has \\['x'\\]"),
        ({"x": None}, "must have the key 'x'"),
        ({"x": np.zeros(50)}, "x must be numbers"),
        ({"x": np.full((50, 3), "a")}, "x must be numbers"),
        ({"x": np.zeros((50, 0))}, "must not be empty"),
        ({"x": np.full((50, 3), np.nan)}, "x must be finite"),
        (
            {"x": np.full((50, 3), 1e300)},
            "x must be finite in float32, and sample 0 is not \\(50 such\\)",
        ),
        ({"y": np.zeros(49, dtype=int)}, "got 50 and 49"),
        ({"y": np.zeros((50, 1), dtype=int)}, "y must be integers"),
        ({"y": np.zeros(50)}, "y must be integers"),
        ({"y": np.full(50, -1)}, "class numbers from 0 on, below 1,000,000, got -1 to -1"),
        (
            {"y": np.full(50, 2**64 - 100, dtype=np.uint64)},
            "below 1,000,000, got 18446744073709551",
        ),
        ({"x": np.zeros((1, 3)), "y": np.zeros(1, dtype=int)}, "1 samples leave none"),
        ({"x_test": np.zeros((5, 3))}, "must have the key 'y_test'"),
        ({"x_test": np.zeros((5, 2)), "y_test": np.zeros(5, dtype=int)}, "one shape"),
        ({"x": np.array([{}] * 50)}, "pickled"),
    ],
)
def test_npz_that_does_not_hold_what_it_should(tmp_path, arrays, change, message):
    arrays = {key: value for key, value in (arrays | change).items() if value is not None}
    with pytest.raises(ValueError, match=message) as caught:
        load_npz(tmp_path / "a.npz", arrays)
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_damaged_npz_files_are_refused(tmp_path, arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[200:220] = bytes(20)
    for content in (
        b"",
        whole[:10],
        whole[: len(whole) // 2],
        whole[:-5],
        bytes(middle),
        b"no zip",
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"not a complete \.npz"):
            load_dataset(f"npz:{path}")


def test_nothing_is_ever_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    path = tmp_path / "a.npz"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="pickled"):
        load_dataset(f"npz:{path}")
    assert not (tmp_path / "exploded").exists()


def test_an_npy_is_no_npz_and_no_file_is_said(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"not a complete \.npz"):
        load_dataset(f"npz:{tmp_path / 'a.npy'}")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_dataset(f"npz:{tmp_path / 'b.npz'}")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="cifar10, npz:PATH, folder:PATH, got 'cifar'"):
        load_dataset("cifar")


def test_models_fit_their_data():
    moons, digits = load_dataset("moons"), load_dataset("digits")
    toy, image = model_for(moons, seed=0), model_for(digits, seed=0)
    assert isinstance(toy, MLP)
    assert isinstance(image, PaperCNN)
    assert toy(moons.test_x).shape == (200, 2)
    assert image(digits.test_x).shape == (500, 10)
    assert PaperCNN(3, (33, 30), 7)(torch.zeros(2, 3, 33, 30)).shape == (2, 7)
    # The tutorial network on MNIST: 5*5*1*32+32 + 5*5*32*64+64 + 3136*1024+1024 + 1024*10+10.
    assert sum(p.numel() for p in PaperCNN(1, (28, 28), 10).parameters()) == 3_274_634
    with pytest.raises(ValueError, match="4 x 4"):
        PaperCNN(1, (3, 28), 10)


def test_weights_depend_on_the_seed_alone_and_leave_the_generator():
    moons = load_dataset("moons")
    before = torch.get_rng_state()
    one, again, other = (model_for(moons, seed=seed)[1].weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_pool_needs_no_labels(tmp_path, arrays):
    path = tmp_path / "a.npz"
    np.savez(path, x=arrays["x"], x_test=arrays["x"][:7])
    np.testing.assert_array_equal(load_pool(f"npz:{path}"), arrays["x"].astype(np.float32))
    assert load_pool(f"npz:{path}", split="test").shape == (7, 3)
    np.savez(path, y=arrays["y"])
    with pytest.raises(ValueError, match="must have the key 'x_test', it has \\['y'\\]"):
        load_pool(f"npz:{path}", split="test")
    digits = load_dataset("digits")
    assert torch.equal(load_pool("digits"), digits.train_x)
    assert torch.equal(load_pool("digits", split="test"), digits.test_x)
    with pytest.raises(ValueError, match="'train' or 'test', got 'val'"):
        load_pool("digits", split="val")
