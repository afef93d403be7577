"""MNIST, Fashion-MNIST, SVHN and CIFAR-10 from torchvision's files."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from real_data import real_data
from test_datasets import assert_well_formed

from vaal_ext.experiment.datasets.load import load_dataset, load_pool
from vaal_ext.experiment.defaults import settings_for
from vaal_ext.experiment.training import model_for
from vaal_ext.models import PaperCNN

datasets = pytest.importorskip("torchvision.datasets")

IDX_FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


@pytest.fixture
def held_out(monkeypatch):
    """Ten images for validation, so that small files do."""
    monkeypatch.setattr("vaal_ext.experiment.datasets.load._IMAGES_VAL", 10)


# --- MNIST and Fashion-MNIST -----------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_small(root: Path, name: str, seed: int) -> Path:
    """Four IDX files of the right kind with 60 and 10 images."""
    raw = root / IDX_FOLDERS[name] / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for prefix, count in (("train", 60), ("t10k", 10)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    return raw


@pytest.fixture
def small_mnist(tmp_path, held_out):
    return write_small(tmp_path, "mnist", 0)


@pytest.mark.parametrize("name", IDX_FOLDERS)
def test_idx_files(name, tmp_path, held_out):
    raws = {each: write_small(tmp_path, each, seed) for seed, each in enumerate(IDX_FOLDERS)}
    data = load_dataset(name, tmp_path)
    assert_well_formed(data)
    assert (data.name, data.num_classes) == (name, 10)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (50, 10, 10)
    assert data.train_x.shape[1:] == (1, 28, 28)
    stored = np.frombuffer((raws[name] / "train-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    pixels = torch.from_numpy(stored.astype(np.float32) / np.float32(255)).view(60, 1, 28, 28)
    assert torch.equal(torch.cat([data.train_x, data.val_x]), pixels)
    assert torch.equal(data.val_y, torch.arange(50, 60) % 10)
    assert torch.equal(load_pool(name, tmp_path, "test"), data.test_x)


def test_mnist_says_what_is_missing_and_where(small_mnist):
    (small_mnist / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset("mnist", small_mnist.parents[1])
    assert str(small_mnist) in str(caught.value)
    assert str(caught.value).endswith("missing: t10k-labels-idx1-ubyte")


@pytest.mark.parametrize("cut", [0, 3, 10, 500])
def test_a_truncated_idx_file_is_named(small_mnist, cut):
    path = small_mnist / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is not a complete IDX file"):
        load_dataset("mnist", small_mnist.parents[1])


def test_mnist_with_fewer_labels_than_images_is_refused(small_mnist):
    write_idx(small_mnist / "t10k-labels-idx1-ubyte", np.arange(9))
    with pytest.raises(ValueError, match="10 images but 9 labels"):
        load_dataset("mnist", small_mnist.parents[1])


def test_too_few_images_for_a_validation_set_are_refused(small_mnist, monkeypatch):
    monkeypatch.setattr("vaal_ext.experiment.datasets.load._IMAGES_VAL", 60)
    with pytest.raises(ValueError, match="60 training images; the last 60 are for validation"):
        load_dataset("mnist", small_mnist.parents[1])


@pytest.mark.data
def test_the_real_mnist(tmp_path):
    packed = real_data("mnist")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in packed.glob("*-ubyte.gz"):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    mnist = load_dataset("mnist", tmp_path)
    assert_well_formed(mnist)
    assert (len(mnist.train_y), len(mnist.val_y), len(mnist.test_y)) == (55_000, 5_000, 10_000)
    # The published first labels of the two files, and the mean pixel everybody normalises with.
    assert mnist.train_y[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.test_y[:5].tolist() == [7, 2, 1, 0, 4]
    assert torch.cat([mnist.train_x, mnist.val_x]).mean().item() == pytest.approx(0.1307, abs=1e-4)


# --- SVHN ------------------------------------------------------------------------------------


def publish_svhn(monkeypatch, root: Path) -> None:
    """The two .mat files in root count as the published ones."""
    for part in ("train", "test"):
        name = f"{part}_32x32.mat"
        md5 = hashlib.md5((root / name).read_bytes()).hexdigest()
        monkeypatch.setitem(datasets.SVHN.split_list, part, ["", name, md5])


def test_svhn(tmp_path, held_out, monkeypatch):
    io = pytest.importorskip("scipy.io")
    rng = np.random.default_rng(0)
    stored = {}
    for part, count in (("train", 40), ("test", 20)):
        x = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        y = (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]  # 1 to 10: 10 is the digit 0
        io.savemat(tmp_path / f"{part}_32x32.mat", {"X": x, "y": y})
        stored[part] = torch.from_numpy(x).permute(3, 2, 0, 1).float() / 255, y[:, 0] % 10
    publish_svhn(monkeypatch, tmp_path)
    data = load_dataset("svhn", tmp_path)
    assert_well_formed(data)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (30, 10, 20)
    assert torch.equal(torch.cat([data.train_x, data.val_x]), stored["train"][0])
    assert torch.equal(data.test_x, stored["test"][0])
    assert torch.cat([data.train_y, data.val_y]).tolist() == stored["train"][1].tolist()
    assert data.test_y.tolist() == stored["test"][1].tolist()


@pytest.mark.data
def test_svhn_on_genuine_images(tmp_path, held_out, monkeypatch):
    """The first 288 training images; they stand for the test images too."""
    pytest.importorskip("scipy.io")
    head = real_data("svhn_head_288.mat")
    for part in ("train", "test"):
        shutil.copy(head, tmp_path / f"{part}_32x32.mat")
    with pytest.raises(ValueError, match=r"train_32x32\.mat is damaged or not svhn's own file"):
        load_dataset("svhn", tmp_path)
    publish_svhn(monkeypatch, tmp_path)
    data = load_dataset("svhn", tmp_path)
    assert_well_formed(data)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (278, 10, 288)
    assert (data.train_x.shape[1:], data.num_classes) == ((3, 32, 32), 10)
    # The first house is 19, the second 23, the third 25, the fourth 93.
    assert data.train_y[:8].tolist() == [1, 9, 2, 3, 2, 5, 9, 3]
    # Neighbouring pixels of a photograph are alike; a wrong order of the axes would lose that.
    rows = (data.test_x[:, :, 1:] - data.test_x[:, :, :-1]).abs().mean()
    columns = (data.test_x[..., 1:] - data.test_x[..., :-1]).abs().mean()
    assert max(rows, columns) < 0.25 * data.test_x.std()
    assert model_for(data, seed=0)(data.test_x[:4]).shape == (4, 10)


# --- CIFAR-10 --------------------------------------------------------------------------------


def write_cifar10(root: Path, monkeypatch) -> dict[str, np.ndarray]:
    """Files of the right names and kind with 8 images each, which count as the published ones."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    stored = {}

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    lists = {"train_list": [], "test_list": []}
    for which in lists:
        for name, _ in getattr(datasets.CIFAR10, which):
            stored[name] = rng.integers(0, 256, (8, 3072), dtype=np.uint8)
            content = {"data": stored[name], "labels": [(i + 2) % 10 for i in range(8)]}
            lists[which].append(write(name, content))
        monkeypatch.setattr(datasets.CIFAR10, which, lists[which])
    name, md5 = write("batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(
        datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5}
    )
    return stored


def test_cifar10(tmp_path, held_out, monkeypatch):
    stored = write_cifar10(tmp_path, monkeypatch)
    data = load_dataset("cifar10", tmp_path)
    assert_well_formed(data)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (30, 10, 8)
    # In the file a row is the red plane, the green one and the blue one.
    train = np.concatenate([stored[f"data_batch_{i}"] for i in range(1, 6)])
    pixels = torch.from_numpy(train).view(40, 3, 32, 32).float() / 255
    assert torch.equal(torch.cat([data.train_x, data.val_x]), pixels)
    assert torch.equal(data.test_x.flatten(1), torch.from_numpy(stored["test_batch"]).float() / 255)
    assert data.test_y.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    model = model_for(data, seed=0)
    assert isinstance(model, PaperCNN)
    assert model(data.test_x).shape == (8, 10)


def test_nothing_but_the_published_pickles_is_read(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    for name in ("batches.meta", "test_batch", "data_batch_3"):
        path = tmp_path / "cifar-10-batches-py" / name
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ValueError, match=f"{name} is damaged or not cifar10's own file"):
            load_dataset("cifar10", tmp_path)
    assert not (tmp_path / "exploded").exists()


# --- all of them -----------------------------------------------------------------------------

WANTED = {
    "mnist": ("MNIST/raw", "train-images-idx3-ubyte, train-labels-idx1-ubyte"),
    "fashion-mnist": ("FashionMNIST/raw", "train-images-idx3-ubyte, train-labels-idx1-ubyte"),
    "svhn": ("", "train_32x32.mat, test_32x32.mat"),
    "cifar10": ("cifar-10-batches-py", "data_batch_1, data_batch_2"),
}


@pytest.mark.parametrize("name", WANTED)
def test_a_data_set_that_is_missing_says_which_files_it_wants_where(name, tmp_path):
    folder, files = WANTED[name]
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset(name, tmp_path)
    assert str(caught.value).startswith(f"{name} wants the files {files}")
    assert f" in {tmp_path / folder}; missing: {files}" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=f"{name} needs a data root"):
        load_dataset(name)


@pytest.mark.parametrize("name", WANTED)
def test_the_papers_numbers_are_the_defaults(name):
    """Table I, and sections IV.B and IV.C."""
    row = settings_for(name)
    assert (row.initial, row.query_size, row.num_iters, row.percentile) == (100, 100, 5, 90.0)
