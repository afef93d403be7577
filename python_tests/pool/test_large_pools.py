"""Pools that are read while they are scored: mapped arrays, folders of images, and their memory."""

import itertools
import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refuse, score_arguments
from real_data import real_data
from torch import nn
from torch.utils.data import ConcatDataset

from vaal_ext.cli.app import main
from vaal_ext.cuda.memory import MemoryGrowth
from vaal_ext.experiment.datasets.folder import ImageFolderPool
from vaal_ext.pool.scores import PoolScores
from vaal_ext.scorer import LDRScorer


@pytest.fixture
def refused(place, capfd):
    def refused(message, *, begun=False, **changes):
        return refuse(place, capfd, score_arguments(**changes), message, begun=begun)

    return refused


def scored(**changes):
    """ldr and entropy that the command gives, with a network that reckons in float64."""
    changes = {"model": "factories:wide", "num-iters": "1"} | changes
    assert main(score_arguments(**changes)) == 0
    scores = PoolScores.load("scores.npz")
    return scores.ldr, scores.entropy


def assert_alike(found, expected):
    # Bytes scaled in another order differ by 2^-22 of their size, the step of 0.5 that is added to
    # them by 2^-24 of theirs: 1e-6 of the gradient and of ldr, and a digit to spare. What sums the
    # network makes, in whatever order, is below the last place.
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5)


# --- mapped arrays ----------------------------------------------------------------------------


def test_several_mapped_files_are_one_pool(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", x[:20])
    np.save(tmp_path / "b.npy", x[20:])
    mapped = ConcatDataset([np.load(tmp_path / name, mmap_mode="r") for name in ("a.npy", "b.npy")])
    torch.manual_seed(0)
    scorer = LDRScorer(nn.Linear(6, 3), eps=1.0, batch_size=16, num_workers=1)
    scores, expected = (scorer.score(pool, progress=False) for pool in (mapped, x))
    np.testing.assert_array_equal(scores.ldr, expected.ldr)
    np.testing.assert_array_equal(scores.index, np.arange(50))


@pytest.mark.rounding
def test_score_maps_an_npy(place):
    x = np.load("pool.npz")["x"]
    np.save("pool.npy", x)
    expected = scored()
    assert_alike(scored(data="npy:pool.npy", **{"batch-size": "7"}), expected)


@pytest.mark.rounding
def test_score_of_mapped_bytes(place, capsys):
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 4), dtype=np.uint8)
    np.save("bytes.npy", x)
    np.savez("bytes.npz", x=x)
    expected = scored(data="npz:bytes.npz")
    assert_alike(scored(data="npy:bytes.npy"), expected)
    mean, std = np.float32([0.1, 0.2, 0.3]).reshape(3, 1), np.float32(0.5)
    np.savez("floats.npz", x=((x / 255 - mean) / std).astype(np.float32))
    expected = scored(data="npz:floats.npz")
    options = {"mean": "0.1,0.2,0.3", "std": "0.5", "amp": "auto", "batch-size": "auto"}
    capsys.readouterr()
    assert_alike(scored(data="npy:bytes.npy", **options), expected)
    assert "batch size " in capsys.readouterr().out


def test_what_cannot_be_mapped_is_refused(place, refused):
    x = np.zeros((4, 3, 4), np.float32)
    np.save("double.npy", x.astype(float))
    np.save("flat.npy", x[:, 0, 0])
    np.save("float.npy", x)
    np.save("bytes.npy", x.astype(np.uint8))
    np.save("pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("cut.npy").write_bytes(Path("float.npy").read_bytes()[:-5])
    os.rename("pool.npz", "zip.npy")
    for data, message in {
        "npy:nowhere.npy": "no file nowhere.npy",
        "npy:double.npy": "must hold float32 or uint8 samples [N, ...], got float64 [4, 3, 4]",
        "npy:flat.npy": "got float32 [4]",
        "npy:pickled.npy": "not a complete .npy",
        "npy:cut.npy": "not a complete .npy",
        "npy:zip.npy": "given as npz:PATH",
        "hdf:x.h5": "folder:PATH, npy:PATH",
    }.items():
        refused(message, data=data)
    refused("npy:PATH has no test part", data="npy:float.npy", split="test")
    refused("is for pools of uint8", data="npy:float.npy", mean="0.5")
    refused("normalize has numbers for 2 channels", data="npy:bytes.npy", mean="0.5,0.5")
    refused("std must be above 0", data="npy:bytes.npy", std="0")
    refused("mean must be numbers", data="npy:bytes.npy", mean="dark")
    many = {"data": "npy:bytes.npy", "batch-size": "many"}
    refused("batch-size must be auto or a whole number", **many)


# --- folders of images ------------------------------------------------------------------------


def write_images(root, count, size=(4, 1)):
    """PNGs, which keep every byte; RGB of 4 x 1 pixels have the 12 numbers that the net takes."""
    image_module = pytest.importorskip("PIL.Image")
    pytest.importorskip("torchvision")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        path = Path(root, "ab"[i % 2], f"{i:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        image_module.fromarray(image).save(path)
    order = [*range(0, count, 2), *range(1, count, 2)]  # class by class
    return pixels[order].transpose(0, 3, 1, 2)


@pytest.mark.rounding
@pytest.mark.parametrize("workers", ["0", "2"])
def test_score_of_a_folder_of_images(place, workers):
    expected = write_images("images", 9)
    np.savez("images.npz", x=expected)
    whole = scored(data="npz:images.npz")
    assert_alike(scored(data="folder:images", workers=workers, **{"batch-size": "4"}), whole)
    pool = ImageFolderPool(Path("images"))
    assert len(pool) == 9
    assert all(np.array_equal(pool[i], expected[i]) for i in range(9))


@pytest.mark.parametrize("workers", ["0", "1"])
def test_images_that_do_not_do_are_named(place, refused, workers):
    write_images("images", 5)
    refused("there is no folder nowhere", data="folder:nowhere")
    os.mkdir("empty")
    refused("there is no image in empty", data="folder:empty")
    options = {"data": "folder:images", "workers": workers}
    whole = Path("images/b/003.png").read_bytes()
    Path("images/b/003.png").write_bytes(whole[:40])
    refused("images/b/003.png is no readable image", begun=True, **options)
    write_images("other", 1, size=(3, 2))
    os.replace("other/a/000.png", "images/b/003.png")
    wanted = "images/b/003.png is 3 x 2 where the first image is 4 x 1"
    refused(wanted, begun=True, **options)


@pytest.mark.data
def test_real_jpegs(tmp_path):
    pytest.importorskip("torchvision")
    packed = real_data("cifar10-jpeg.tar.xz")
    with tarfile.open(packed, "r|xz") as archive:  # a stream: the rest is never unpacked
        images = (member for member in archive if member.name.endswith(".jpg"))
        for member in itertools.islice(images, 20):
            target = tmp_path / Path(member.name).parent.name / Path(member.name).name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(archive.extractfile(member).read())
    pool = ImageFolderPool(tmp_path)
    x = torch.stack([pool[i] for i in range(20)])
    assert (x.shape, x.dtype) == ((20, 3, 32, 32), torch.uint8)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    scorer = LDRScorer(model, eps=1.0, batch_size=8, num_workers=2, normalize=(0.5, 0.25))
    read, held = (scorer.score(samples, progress=False) for samples in (pool, x))
    np.testing.assert_array_equal(read.ldr, held.ldr)


# --- memory -----------------------------------------------------------------------------------


class Tiny(nn.Module):
    """Logits of 2 features, so that the test is about the scorer."""

    def forward(self, x):
        return x * torch.tensor([1.0, -1.0])


def test_a_sample_takes_64_bytes(tmp_path):
    """Python's and NumPy's memory at its peak: the model and the batches are the same for both
    sizes and cancel. (torch's own memory is that of a batch; the scores are NumPy arrays.)"""
    scorer = LDRScorer(Tiny(), eps=1.0, num_iters=1, batch_size=4096, normalize=(0.5, 0.5))
    peaks = []
    sizes = (2**16, 2**19)
    for size in sizes:
        path = tmp_path / f"{size}.npy"
        np.save(path, np.random.default_rng(0).integers(0, 256, (size, 2), dtype=np.uint8))
        pool = np.load(path, mmap_mode="r")
        scorer.score(pool[:4096], progress=False)  # what is made once
        tracemalloc.start()
        scores = scorer.score(pool, progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert scores.num_samples == size
    assert (peaks[1] - peaks[0]) / (sizes[1] - sizes[0]) <= 64


def test_four_batches_are_held_besides_the_model():
    """Of the network's input, read from bytes. A batch of 48 MB is larger than any block that the
    C library keeps, so each one counts."""
    size, weight = 4096, torch.randn(3072, 3, generator=torch.Generator().manual_seed(0))
    pool = np.random.default_rng(0).integers(0, 256, (2 * size, 3072), dtype=np.uint8)
    scorer = LDRScorer(
        lambda x: x @ weight, eps=1.0, num_iters=2, batch_size=size, normalize=(0.5, 0.5)
    )
    scorer.score(pool[:2], progress=False)  # what is made once
    growth = MemoryGrowth(torch.device("cpu"))
    scorer.score(pool, progress=False)
    assert growth.peak() <= 4 * size * 3072 * 4
