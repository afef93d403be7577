"""Labelled data by name, split into a pool, a validation set and a test set.

================= ==============================================================================
``moons``         two interleaved half circles in the plane (paper section IV.A): 1000 points
``circles``       two concentric circles in the plane (paper section IV.A): 1000 points
``moons-100``     two arcs of three quarters of a turn, noisy, in a plane of a space of 100
                  dimensions, as in Miyato et al. 2016, section 4.1 (VAT)
``circles-100``   two concentric circles, noisy, likewise
``digits``        scikit-learn's 1797 handwritten digits, 8 x 8 pixels: 1000 in the pool, 297 for
                  validation, 500 to test on
``mnist``         see :mod:`.images` for the files; 55,000, 5,000 and 10,000 images
``fashion-mnist`` the same numbers
``svhn``          68,257, 5,000 and 26,032 (the paper's pool is all 73,257; the extra set is unused)
``cifar10``       45,000, 5,000 and 10,000 (the paper's pool is all 50,000)
``npz:PATH``      arrays x and y of your own; x_val, y_val, x_test and y_test if it has them
``folder:PATH``   images of your own and of one size, in PATH/train/CLASS and PATH/test/CLASS (a
                  tenth of train is for validation), or all in PATH/CLASS; as a pool, any images
                  below PATH
================= ==============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaal_ext.experiment.datasets.arrays import labelled_samples, mapped_samples, read_npz, samples
from vaal_ext.experiment.datasets.folder import ImageFolderPool, labelled_parts
from vaal_ext.experiment.datasets.images import IMAGE_DATASETS, read_images
from vaal_ext.experiment.datasets.names import (
    DATASET_NAMES,
    POOL_NAMES,
    TOYS,
    path_of,
    unknown_name,
)

__all__ = ["DataSplit", "content_key", "load_dataset", "load_pool"]

# The last of the training images are for validation: as many as the paper's Table I leaves out.
_IMAGES_VAL = 5_000

_DIGITS_POOL, _DIGITS_VAL = 1000, 297  # and 500 to test on
_DIGITS_SPLIT_SEED = 1797  # fixed: every run on the digits is measured on the same test images

_TOY_POOL, _TOY_TEST, _TOY_VAL = 800, 200, 200  # the paper has 800 and 200, and no validation set
_INNER_RADIUS = 0.8  # as in scikit-learn's make_circles; the paper gives no number
_EMBEDDING = 100  # dimensions, Miyato et al. 2016, section 4.1

# Shares of data that bring no test or validation set of their own.
_TEST_SHARE, _VAL_SHARE = 0.2, 0.1

_FOLDER_SPLIT_SEED = 0  # fixed: every run on a folder is measured on the same test images


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


def content_key(name: str, seed: int) -> tuple[str, int | None]:
    """A key that is the same for two calls of :func:`load_dataset` which give the same data: the
    name, and the seed where the data depend on it."""
    drawn = name in TOYS or name.startswith("npz:")
    return name, seed if drawn else None


def load_dataset(
    name: str,
    data_root: str | Path | None = None,
    seed: int = 0,
    *,
    progress: bool = True,
    on_unreadable: str = "raise",
) -> DataSplit:
    """Load a data set by name; nothing is downloaded.

    Args:
        name: one of :data:`.names.DATASET_NAMES`.
        data_root: the folder that :mod:`.images` reads; the others need none.
        seed: draws the points of the toy sets, and the split of an ``npz`` that brings no test or
            validation set. All others have one fixed split.
        progress: whether to show a bar where a folder of images is read.
        on_unreadable: "raise", or "skip": then images of a folder that cannot be read are left out,
            and a warning names each.

    Raises:
        ValueError: an unknown name, or a file that does not hold what it should.
        FileNotFoundError: naming the files that are wanted and where.
        OSError: an image that cannot be read, or a folder without images.
    """
    _require_folder(name, on_unreadable)
    if name.startswith("npz:"):
        return _npz(path_of(name), seed, name)
    if name.startswith("folder:"):
        path = path_of(name)
        parts = labelled_parts(path, progress, on_unreadable)
        return _with_held_out(parts, _FOLDER_SPLIT_SEED, path, name)
    if name in TOYS:
        rng = np.random.default_rng(seed)
        return _toy_split(*(_embedded_toy if name.endswith("-100") else _toy)(name, rng), name)
    if name == "digits":
        return _digits()
    if name in IMAGE_DATASETS:
        return _images(name, data_root)
    raise unknown_name(name, DATASET_NAMES)


def load_pool(
    name: str,
    data_root: str | Path | None = None,
    split: str = "train",
    *,
    on_unreadable: str = "raise",
) -> Tensor | np.ndarray | ImageFolderPool:
    """The samples alone, to be scored; their order is that of the indices.

    Of a data set of :func:`load_dataset` the pool (``split="train"``) or the test set (``"test"``),
    float32 [N, ...]; of an ``npz`` all of ``x`` or of ``x_test``, without labels. Two kinds are
    read while they are scored, and may be larger than memory: ``npy:PATH`` is one array, float32
    or uint8 [N, ...], mapped from its file, and ``folder:PATH`` an
    :class:`.folder.ImageFolderPool`, which takes `on_unreadable`. They have no
    test part.

    Raises:
        ValueError, FileNotFoundError: see :func:`load_dataset`; another split.
        OSError: a folder without images.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    _require_folder(name, on_unreadable)
    kind = name.partition(":")[0]
    if kind in ("npy", "folder"):
        if split == "test":
            raise ValueError(f"{kind}:PATH has no test part: give the path of what is to be scored")
        if kind == "npy":
            return mapped_samples(path_of(name))
        return ImageFolderPool(path_of(name), on_unreadable=on_unreadable)
    if kind == "npz":
        path = path_of(name)
        return samples(read_npz(path), "x" if split == "train" else "x_test", path)
    if name not in DATASET_NAMES:
        raise unknown_name(name, POOL_NAMES)
    data = load_dataset(name, data_root)
    return data.train_x if split == "train" else data.test_x


def _require_folder(name: str, on_unreadable: str) -> None:
    if on_unreadable != "raise" and not name.startswith("folder:"):
        raise ValueError(f"on_unreadable={on_unreadable!r} is for folder:PATH, got {name!r}")


def _toy(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points uniform on two arcs or two circles, without noise: float64 [N, 2], and their classes.
    There are as many of each class."""
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
    return np.where(label[:, None] == 0, outer, inner), label


def _embedded_toy(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same as float64 [N, 100], drawn like the two data sets in VAT's published code.

    The paper says that points uniform on two curves are linearly embedded in 100 dimensions. The
    files (github.com/takerum/vat, dataset/syndata_1.pkl and syndata_2.pkl) hold the embedding, two
    orthonormal rows, and the points: a circle fitted to each class has the numbers used here.
    """
    total = _TOY_POOL + _TOY_TEST + _TOY_VAL
    label = rng.permutation(np.arange(total) % 2)
    side = np.where(label == 0, -1.0, 1.0)
    if name == "moons-100":
        angle = rng.uniform(0.5 * np.pi, 2.0 * np.pi, total) + np.where(label == 0, 0.0, np.pi)
        radius, centre, noise = np.ones(total), np.stack([0.5 * side, -0.25 * side], axis=1), 0.1
    else:
        angle = rng.uniform(0.0, 2.0 * np.pi, total)
        radius, centre, noise = np.where(label == 0, 0.25, 1.0), np.zeros((total, 2)), 0.05
    plane = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    plane += noise * rng.standard_normal((total, 2))
    rows, _ = np.linalg.qr(rng.standard_normal((_EMBEDDING, 2)))
    return plane @ rows.T, label


def _toy_split(x: np.ndarray, label: np.ndarray, name: str) -> DataSplit:
    samples, labels = torch.from_numpy(x).float(), torch.from_numpy(label.astype(np.int64))
    return _cut(samples, labels, [_TOY_POOL, _TOY_VAL, _TOY_TEST], 2, name)


def _digits() -> DataSplit:
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.from_numpy(data.images).float().div_(16.0).unsqueeze(1)
    y = torch.from_numpy(data.target).long()
    shuffled = torch.from_numpy(np.random.default_rng(_DIGITS_SPLIT_SEED).permutation(len(y)))
    test = len(y) - _DIGITS_POOL - _DIGITS_VAL
    return _cut(x[shuffled], y[shuffled], [_DIGITS_POOL, _DIGITS_VAL, test], 10, "digits")


def _images(name: str, data_root: str | Path | None) -> DataSplit:
    """The published training and test images; the last of the former are for validation."""
    (train_x, train_y), test = read_images(name, data_root)
    pool = len(train_y) - _IMAGES_VAL
    if pool <= 0:
        raise ValueError(
            f"{name} in {data_root} has {len(train_y)} training images; the last {_IMAGES_VAL} are "
            "for validation, which leaves none for the pool"
        )
    train, val = (train_x[:pool], train_y[:pool]), (train_x[pool:], train_y[pool:])
    return _data_split(train, val, test, name)


def _npz(path: Path, seed: int, name: str) -> DataSplit:
    arrays = read_npz(path)
    parts = {"train": labelled_samples(arrays, "x", "y", path)}
    for part in ("val", "test"):
        if f"x_{part}" in arrays or f"y_{part}" in arrays:
            parts[part] = labelled_samples(arrays, f"x_{part}", f"y_{part}", path)
    return _with_held_out(parts, seed, path, name)


def _with_held_out(
    parts: dict[str, tuple[Tensor, Tensor]], seed: int, path: Path, name: str
) -> DataSplit:
    """The parts "train", "val" and "test"; where val or test is not given it is drawn from train.

    The pool keeps the order of train; samples drawn for another part are not in it.
    """
    x, y = parts["train"]
    for part, (other, _) in parts.items():
        if other.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"{path}: train and {part} must hold samples of one shape, "
                f"got {tuple(x.shape[1:])} and {tuple(other.shape[1:])}"
            )
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))
    held_out = {}
    for part, share in (("test", _TEST_SHARE), ("val", _VAL_SHARE)):
        if part not in parts:
            number = max(1, round(share * len(shuffled)))
            chosen, shuffled = shuffled[:number], shuffled[number:]
            held_out[part] = x[chosen], y[chosen]
    kept = shuffled.sort().values
    if len(kept) == 0:
        raise ValueError(f"{path}: {len(y)} samples leave none for the pool")
    parts = parts | held_out
    return _data_split((x[kept], y[kept]), parts["val"], parts["test"], name)


def _data_split(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    name: str,
) -> DataSplit:
    """Samples and labels as they are; bytes are pixels, and become numbers in [0, 1]."""
    scaled = [
        (x.float().div_(255.0) if x.dtype == torch.uint8 else x, y) for x, y in (train, val, test)
    ]
    num_classes = 1 + max(int(y.max()) for _, y in scaled)
    return DataSplit(*scaled[0], *scaled[1], *scaled[2], num_classes, name)


def _cut(x: Tensor, y: Tensor, sizes: list[int], num_classes: int, name: str) -> DataSplit:
    """Cut samples into pool, validation and test set, one after the other."""
    (train_x, val_x, test_x), (train_y, val_y, test_y) = x.split(sizes), y.split(sizes)
    return DataSplit(train_x, train_y, val_x, val_y, test_x, test_y, num_classes, name)
