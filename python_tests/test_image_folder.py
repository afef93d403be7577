"""Labelled images in torchvision's ImageFolder layout, as data of a run."""

from __future__ import annotations

import itertools
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from real_data import real_data
from test_datasets import assert_well_formed

from vaal_ext.datasets.load import load_dataset
from vaal_ext.experiment.loop import RunConfig, run
from vaal_ext.models import PaperCNN, model_for
from vaal_ext.radius import rms_length

image_module = pytest.importorskip("PIL.Image")
pytest.importorskip("torchvision")

CLASSES = ("ant", "bee", "fly")


def write_images(
    root: Path, count: int, *, classes=CLASSES, size=(8, 9), seed=0
) -> tuple[torch.Tensor, torch.Tensor]:
    """count PNGs (which keep every byte) of each class; what reading them must give."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (len(classes), count, *size, 3), dtype=np.uint8)
    for name, images in zip(classes, pixels, strict=True):
        folder = root / name
        folder.mkdir(parents=True)
        for i, image in enumerate(images):
            image_module.fromarray(image).save(folder / f"{i:03}.png")
    x = torch.from_numpy(pixels).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    return x, torch.arange(len(classes)).repeat_interleave(count)


def positions(part: torch.Tensor, x: torch.Tensor) -> list[int]:
    """Where in x the images of a part are; each is there once."""
    same = (part.flatten(1)[:, None] == x.flatten(1)[None]).all(dim=2)
    assert (same.sum(dim=1) == 1).all()
    return same.int().argmax(dim=1).tolist()


def test_train_and_test_folders(tmp_path):
    x, y = write_images(tmp_path / "train", 20)
    test_x, test_y = write_images(tmp_path / "test", 4, seed=1)
    data = load_dataset(f"folder:{tmp_path}")
    assert_well_formed(data)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (54, 6, 12)
    assert data.num_classes == 3
    assert torch.equal(data.test_x, test_x)
    assert torch.equal(data.test_y, test_y)
    pool, val = positions(data.train_x, x), positions(data.val_x, x)
    assert pool == sorted(pool)  # in the order of the folders
    assert sorted(pool + val) == list(range(60))
    assert torch.equal(data.train_y, y[pool])
    assert torch.equal(data.val_y, y[val])
    # One split for all seeds: nothing that was validation for one is trained on by another.
    assert torch.equal(load_dataset(f"folder:{tmp_path}", seed=5).val_x, data.val_x)
    assert isinstance(model_for(data, seed=0), PaperCNN)


def test_class_folders_alone_are_split(tmp_path):
    x, y = write_images(tmp_path, 20)
    data = load_dataset(f"folder:{tmp_path}")
    assert_well_formed(data)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (43, 5, 12)
    parts = [positions(part, x) for part in (data.train_x, data.val_x, data.test_x)]
    assert sorted(itertools.chain(*parts)) == list(range(60))
    assert torch.equal(data.test_y, y[parts[2]])
    assert torch.equal(load_dataset(f"folder:{tmp_path}", seed=5).test_x, data.test_x)


def test_a_class_may_be_called_train(tmp_path):
    write_images(tmp_path, 5, classes=("car", "train"))
    assert load_dataset(f"folder:{tmp_path}").num_classes == 2


def test_folders_that_do_not_do(tmp_path):
    write_images(tmp_path / "one" / "train", 3)
    with pytest.raises(ValueError, match=r"must hold train and test, .* only train"):
        load_dataset(f"folder:{tmp_path / 'one'}")

    write_images(tmp_path / "two" / "train", 3)
    write_images(tmp_path / "two" / "test", 3, classes=("ant", "bug", "fly"))
    with pytest.raises(ValueError, match="same classes; only in one of them: bee, bug"):
        load_dataset(f"folder:{tmp_path / 'two'}")

    write_images(tmp_path / "sizes" / "train", 3)
    write_images(tmp_path / "sizes" / "test", 3, size=(9, 8))
    with pytest.raises(ValueError, match=r"one shape, got \(3, 8, 9\) and \(3, 9, 8\)"):
        load_dataset(f"folder:{tmp_path / 'sizes'}")

    write_images(tmp_path / "mixed", 3)
    os.replace(tmp_path / "sizes/test/ant/000.png", tmp_path / "mixed/bee/000.png")
    with pytest.raises(ValueError, match=r"bee/000.png is 8 x 9 where the first image is 9 x 8"):
        load_dataset(f"folder:{tmp_path / 'mixed'}")

    write_images(tmp_path / "cut", 3)
    path = tmp_path / "cut" / "fly" / "001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(OSError, match=r"fly/001.png is no readable image"):
        load_dataset(f"folder:{tmp_path / 'cut'}")

    write_images(tmp_path / "few", 1, classes=("ant",))
    with pytest.raises(ValueError, match="1 samples leave none for the pool"):
        load_dataset(f"folder:{tmp_path / 'few'}")

    for missing in ("nowhere", "cut/fly"):
        with pytest.raises(OSError, match=missing):
            load_dataset(f"folder:{tmp_path / missing}")


def test_a_run_on_a_folder(tmp_path, monkeypatch):
    x, _ = write_images(tmp_path / "images", 12)
    monkeypatch.chdir(tmp_path)
    config = RunConfig(
        "folder:images", "vaal", rounds=1, initial=4, query_size=3, steps=1, num_iters=1,
        device="cpu", backend="reference",
    )  # fmt: skip
    run(config, tmp_path / "run", progress=False)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert saved["dataset"] == f"folder:{tmp_path / 'images'}"  # from anywhere
    assert saved["eps"] == float(f"{0.02 * rms_length(x):.3g}")
    # Other pictures under the same name are another run.
    image = image_module.new("RGB", (9, 8))
    image.save(tmp_path / "images" / "ant" / "000.png")
    with pytest.raises(ValueError, match="the data it was made from are not the data here"):
        run(config, tmp_path / "run", progress=False)


@pytest.mark.data
def test_real_jpegs_in_train_and_test(tmp_path):
    """CIFAR-10's images as JPEG: three of each class for train, and for test."""
    packed = real_data("cifar10-jpeg.tar.xz")
    with tarfile.open(packed, "r|xz") as archive:  # a stream: the rest is never unpacked
        for member in archive:
            path = Path(member.name)  # ending in PART/CLASS/NUMBER.jpg
            if path.name in ("0000.jpg", "0001.jpg", "0002.jpg"):
                target = tmp_path.joinpath(*path.parts[-3:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    data = load_dataset(f"folder:{tmp_path}")
    assert_well_formed(data)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (27, 3, 30)
    assert data.num_classes == 10
    assert data.test_y.tolist() == [i for i in range(10) for _ in range(3)]
    assert data.train_x.shape[1:] == (3, 32, 32)
    assert 0 <= data.train_x.min() < data.train_x.max() <= 1
