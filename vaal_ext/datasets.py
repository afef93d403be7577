"""Labelled data by name, split into a pool, a validation set and a test set.

============ ===================================================================================
``moons``    two interleaved half circles in the plane (paper section IV.A): 1000 points
``circles``  two concentric circles in the plane (paper section IV.A): 1000 points
``digits``   scikit-learn's 1797 handwritten digits, 8 x 8 pixels
``mnist``    MNIST's four IDX files under DATA_ROOT/MNIST/raw
``npz:PATH`` arrays x and y of your own; x_val, y_val, x_test and y_test if it has them
============ ===================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vaal_ext.image_folder import ImageFolderPool
from vaal_ext.npz_arrays import labelled_samples, mapped_samples, read_npz, samples

__all__ = ["DATASET_NAMES", "POOL_NAMES", "DataSplit", "load_dataset", "load_pool"]

DATASET_NAMES = ("moons", "circles", "digits", "mnist", "npz:PATH")
POOL_NAMES = (*DATASET_NAMES, "npy:PATH", "folder:PATH")

_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_MNIST_POOL = 55_000  # the paper's Table I; the last 5,000 training images are for validation

_DIGITS_POOL, _DIGITS_VAL = 1000, 297  # and 500 to test on
_DIGITS_SPLIT_SEED = 1797  # fixed: every run on the digits is measured on the same test images

_TOY_POOL, _TOY_TEST, _TOY_VAL = (
    800,
    200,
    200,
)  # 800/200 is the paper's; validation is extra
_INNER_RADIUS = 0.8  # as in scikit-learn's make_circles; the paper gives no number

# Shares of an .npz that brings no test or validation set of its own.
_NPZ_TEST, _NPZ_VAL = 0.2, 0.1


@dataclass(frozen=True)
class DataSplit:
    """A data set ready for active learning.

    ``*_x`` are float32 [N, ...], in the units that xi and eps are meant in; ``*_y`` are int64 [N]
    in [0, num_classes). ``train_*`` is the pool: its labels are the oracle's answers.
    """

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor
    test_x: Tensor
    test_y: Tensor
    num_classes: int
    name: str


def load_dataset(name: str, data_root: str | Path | None = None, seed: int = 0) -> DataSplit:
    """Load a data set by name; nothing is downloaded.

    Args:
        name: one of :data:`DATASET_NAMES`.
        data_root: the folder that holds ``MNIST/raw``; only ``mnist`` reads it.
        seed: draws the points of the toy sets, and the split of an ``npz`` that brings no test or
            validation set. ``digits`` and ``mnist`` have one fixed split.

    Raises:
        ValueError: an unknown name, or a file that does not hold what it should.
        FileNotFoundError: naming the files that are wanted and where.
    """
    if name.startswith("npz:"):
        return _npz(Path(name.removeprefix("npz:")), seed, name)
    if name == "moons" or name == "circles":
        return _toy(name, seed)
    if name == "digits":
        return _digits()
    if name == "mnist":
        return _mnist(data_root)
    raise ValueError(f"dataset must be one of {', '.join(DATASET_NAMES)}, got {name!r}")


def load_pool(
    name: str, data_root: str | Path | None = None, split: str = "train"
) -> Tensor | np.ndarray | Dataset:
    """The samples alone, to be scored; their order is that of the indices.

    Of a data set of :func:`load_dataset` the pool (``split="train"``) or the test set (``"test"``),
    float32 [N, ...]; of an ``npz`` all of ``x`` or of ``x_test``, without labels. Two kinds are
    read while they are scored, and may be larger than memory: ``npy:PATH`` is one array, float32
    or uint8 [N, ...], mapped from its file, and ``folder:PATH`` an
    :class:`~vaal_ext.image_folder.ImageFolderPool`. They have no test part.

    Raises:
        ValueError, FileNotFoundError: see :func:`load_dataset`; another split.
        OSError: a folder without images.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    kind, _, path = name.partition(":")
    if kind in ("npy", "folder"):
        if split == "test":
            raise ValueError(f"{kind}:PATH has no test part: give the path of what is to be scored")
        return mapped_samples(Path(path)) if kind == "npy" else ImageFolderPool(Path(path))
    if kind == "npz":
        return samples(read_npz(Path(path)), "x" if split == "train" else "x_test", Path(path))
    if name not in DATASET_NAMES:
        raise ValueError(f"dataset must be one of {', '.join(POOL_NAMES)}, got {name!r}")
    data = load_dataset(name, data_root)
    return data.train_x if split == "train" else data.test_x


def _toy(name: str, seed: int) -> DataSplit:
    """Points uniform on two arcs or two circles, without noise; as many of each class."""
    rng = np.random.default_rng(seed)
    total = _TOY_POOL + _TOY_TEST + _TOY_VAL
    label = rng.permutation(np.arange(total) % 2)
    if name == "moons":
        angle = rng.uniform(0.0, np.pi, total)
        outer = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        inner = np.stack([1.0 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    else:
        angle = rng.uniform(0.0, 2.0 * np.pi, total)
        outer = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        inner = _INNER_RADIUS * outer
    x = torch.from_numpy(np.where(label[:, None] == 0, outer, inner)).float()
    y = torch.from_numpy(label.astype(np.int64))
    return _cut(x, y, [_TOY_POOL, _TOY_VAL, _TOY_TEST], 2, name)


def _digits() -> DataSplit:
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.from_numpy(data.images).float().div_(16.0).unsqueeze(1)
    y = torch.from_numpy(data.target).long()
    shuffled = torch.from_numpy(np.random.default_rng(_DIGITS_SPLIT_SEED).permutation(len(y)))
    test = len(y) - _DIGITS_POOL - _DIGITS_VAL
    return _cut(x[shuffled], y[shuffled], [_DIGITS_POOL, _DIGITS_VAL, test], 10, "digits")


def _mnist(data_root: str | Path | None) -> DataSplit:
    if data_root is None:
        raise ValueError("mnist needs a data root: the folder that holds MNIST/raw, got none")
    raw = Path(data_root) / "MNIST" / "raw"
    missing = [file for file in _MNIST_FILES if not (raw / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"mnist wants the files {', '.join(_MNIST_FILES)} (unpacked) in {raw}; "
            f"missing: {', '.join(missing)}"
        )
    train_x, train_y, test_x, test_y = (_idx(raw / file) for file in _MNIST_FILES)
    for images, labels, which in (
        (train_x, train_y, "train"),
        (test_x, test_y, "t10k"),
    ):
        if len(images) != len(labels):
            raise ValueError(f"{raw}: {which} has {len(images)} images but {len(labels)} labels")
    if len(train_y) <= _MNIST_POOL:
        raise ValueError(f"{raw}: expected 60000 training images, got {len(train_y)}")
    train = _cut(train_x, train_y, [_MNIST_POOL, len(train_y) - _MNIST_POOL, 0], 10, "mnist")
    return DataSplit(
        train.train_x,
        train.train_y,
        train.val_x,
        train.val_y,
        test_x,
        test_y,
        10,
        "mnist",
    )


def _idx(path: Path) -> Tensor:
    """One IDX file: images as float32 [N, 1, H, W] in [0, 1], labels as int64 [N]."""
    from torchvision.datasets import mnist

    try:
        if "images" in path.name:
            return mnist.read_image_file(str(path)).unsqueeze(1).float().div_(255.0)
        return mnist.read_label_file(str(path))
    except OSError:
        raise
    # A damaged file ends in whatever its header leads torchvision to: assertion, key, shape, type.
    except Exception as error:
        raise ValueError(f"{path} is not a complete IDX file: {error}") from error


def _npz(path: Path, seed: int, name: str) -> DataSplit:
    arrays = read_npz(path)
    train = labelled_samples(arrays, "x", "y", path)
    pairs = {
        part: labelled_samples(arrays, f"x_{part}", f"y_{part}", path)
        for part in ("val", "test")
        if f"x_{part}" in arrays or f"y_{part}" in arrays
    }
    for part, (x, _) in pairs.items():
        if x.shape[1:] != train[0].shape[1:]:
            raise ValueError(
                f"{path}: x and x_{part} must hold samples of one shape, "
                f"got {tuple(train[0].shape[1:])} and {tuple(x.shape[1:])}"
            )
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(len(train[1])))
    for part, share in (("test", _NPZ_TEST), ("val", _NPZ_VAL)):
        if part not in pairs:
            held_out = max(1, round(share * len(shuffled)))
            chosen, shuffled = shuffled[:held_out], shuffled[held_out:]
            pairs[part] = train[0][chosen], train[1][chosen]
    # The pool keeps the order of the file, so that its indices mean something to the user.
    kept = shuffled.sort().values
    if len(kept) == 0:
        raise ValueError(f"{path}: {len(train[1])} samples leave none for the pool")
    x, y = train[0][kept], train[1][kept]
    (val_x, val_y), (test_x, test_y) = pairs["val"], pairs["test"]
    num_classes = int(max(y.max(), val_y.max(), test_y.max())) + 1
    return DataSplit(x, y, val_x, val_y, test_x, test_y, num_classes, name)


def _cut(x: Tensor, y: Tensor, sizes: list[int], num_classes: int, name: str) -> DataSplit:
    """Cut samples into pool, validation and test set, one after the other."""
    (train_x, val_x, test_x), (train_y, val_y, test_y) = x.split(sizes), y.split(sizes)
    return DataSplit(train_x, train_y, val_x, val_y, test_x, test_y, num_classes, name)
