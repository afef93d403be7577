"""MNIST, Fashion-MNIST, SVHN and CIFAR-10, from the files that torchvision reads.

================= ==============================================================================
``mnist``         the four unpacked IDX files in DATA_ROOT/MNIST/raw
``fashion-mnist`` the four unpacked IDX files in DATA_ROOT/FashionMNIST/raw
``svhn``          train_32x32.mat and test_32x32.mat in DATA_ROOT
``cifar10``       the seven files of the Python version in DATA_ROOT/cifar-10-batches-py
================= ==============================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["IMAGE_DATASETS", "Images", "read_images"]

Images = tuple[Tensor, Tensor]  # uint8 [N, Ch, H, W] and labels int64 [N]

_IDX_FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
IMAGE_DATASETS = (*_IDX_FOLDERS, "svhn", "cifar10")

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

_WANTED = {
    name: f"{folder}/raw with {', '.join(_IDX_FILES)} (unpacked)"
    for name, folder in _IDX_FOLDERS.items()
} | {
    "svhn": "train_32x32.mat and test_32x32.mat",
    "cifar10": "cifar-10-batches-py, as the archive of the Python version unpacks",
}


def read_images(name: str, data_root: str | Path | None) -> tuple[Images, Images]:
    """The training and the test images of one of :data:`IMAGE_DATASETS`, in the files' order.

    Nothing is downloaded. The files of ``svhn`` and ``cifar10`` are read only where their checksums
    are the published ones (the latter are pickles).

    Raises:
        ValueError: no data root, or a file that is damaged or not the original.
        FileNotFoundError: naming the files that are wanted and where.
    """
    if data_root is None:
        raise ValueError(
            f"{name} needs a data root, the folder that torchvision reads: below it {_WANTED[name]}"
        )
    if name in _IDX_FOLDERS:
        return _idx_images(name, Path(data_root) / _IDX_FOLDERS[name] / "raw")
    return _svhn(Path(data_root)) if name == "svhn" else _cifar10(Path(data_root))


def _idx_images(name: str, raw: Path) -> tuple[Images, Images]:
    _require_files(name, raw, _IDX_FILES, " (unpacked)")
    train_x, train_y, test_x, test_y = (_idx(raw / file) for file in _IDX_FILES)
    for images, labels, which in ((train_x, train_y, "train"), (test_x, test_y, "t10k")):
        if len(images) != len(labels):
            raise ValueError(f"{raw}: {which} has {len(images)} images but {len(labels)} labels")
    return (train_x, train_y), (test_x, test_y)


def _idx(path: Path) -> Tensor:
    """One IDX file: images as uint8 [N, 1, H, W], labels as int64 [N]."""
    from torchvision.datasets import mnist

    try:
        images = "images" in path.name
        content: Tensor = (mnist.read_image_file if images else mnist.read_label_file)(str(path))
        return content.unsqueeze(1) if images else content
    except OSError:
        raise
    # A damaged file ends in whatever its header leads torchvision to: assertion, key, shape, type.
    except Exception as error:
        raise ValueError(f"{path} is not a complete IDX file: {error}") from error


def _svhn(root: Path) -> tuple[Images, Images]:
    from torchvision.datasets import SVHN

    files = {SVHN.split_list[part][1]: SVHN.split_list[part][2] for part in ("train", "test")}
    _require_originals("svhn", root, files)
    train, test = SVHN(str(root), "train"), SVHN(str(root), "test")
    return _tensors(train.data, train.labels), _tensors(test.data, test.labels)


def _cifar10(root: Path) -> tuple[Images, Images]:
    from torchvision.datasets import CIFAR10

    files = dict(CIFAR10.train_list + CIFAR10.test_list)
    files[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    _require_originals("cifar10", root / CIFAR10.base_folder, files)
    train, test = CIFAR10(str(root), train=True), CIFAR10(str(root), train=False)
    # torchvision keeps these as [N, H, W, Ch].
    return (
        _tensors(train.data.transpose(0, 3, 1, 2), train.targets),
        _tensors(test.data.transpose(0, 3, 1, 2), test.targets),
    )


def _tensors(images: np.ndarray, labels: Sequence[int] | np.ndarray) -> Images:
    return torch.from_numpy(np.ascontiguousarray(images)), torch.as_tensor(labels).long()


def _require_originals(name: str, folder: Path, md5: dict[str, str]) -> None:
    """All files are there, and are the published ones."""
    from torchvision.datasets.utils import check_integrity

    _require_files(name, folder, tuple(md5))
    for file, checksum in md5.items():
        if not check_integrity(str(folder / file), checksum):
            raise ValueError(
                f"{folder / file} is damaged or not {name}'s own file: its MD5 is not {checksum}"
            )


def _require_files(name: str, folder: Path, files: Sequence[str], how: str = "") -> None:
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{name} wants the files {', '.join(files)}{how} in {folder}; "
            f"missing: {', '.join(missing)}"
        )
