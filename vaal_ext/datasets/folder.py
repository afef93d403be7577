"""Folders of images in torchvision's ImageFolder layout: as a pool, and as labelled data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vaal_ext.progress import progress_bar

__all__ = ["ImageFolderPool", "labelled_parts"]


class ImageFolderPool(Dataset[Tensor]):
    """The images under `root`, in torchvision's ImageFolder layout (root/CLASS/IMAGE), unlabelled.

    They are decoded when they are read, in worker processes if asked for. Samples are uint8
    [3, H, W], in ImageFolder's order: classes by name, then files by name. A pool without labels is
    one folder in `root`. ``classes`` are the folders' names, ``labels`` the position in them of
    every image, int64 [N].

    Raises:
        OSError: there is no such folder, or no folder of images in it; later, an image that cannot
            be read.
        ValueError: later, an image that differs in size from the first.
    """

    def __init__(self, root: Path) -> None:
        from torchvision.datasets import ImageFolder
        from torchvision.transforms.functional import pil_to_tensor

        if not root.is_dir():
            raise FileNotFoundError(f"there is no folder {root}: images are wanted in {root}/CLASS")
        self._folder = ImageFolder(str(root), transform=pil_to_tensor)
        self._shape = self._folder[0][0].shape
        self.classes = self._folder.classes
        self.labels = torch.tensor(self._folder.targets)

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, position: int) -> Tensor:
        path = self._folder.samples[position][0]
        image: Tensor
        try:
            image, _ = self._folder[position]
        except OSError as error:
            raise OSError(f"{path} is no readable image: {error}") from error
        if image.shape != self._shape:
            raise ValueError(
                f"{path} is {_size(image.shape)} where the first image is {_size(self._shape)}: a "
                "network's batch needs one size, so scale or crop the images first"
            )
        return image


def labelled_parts(root: Path, progress: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """All images under `root`, decoded, with the position of their class: uint8 [N, 3, H, W] and
    int64 [N].

    Where `root` holds both train/ and test/, each in ImageFolder's layout, these are two parts of
    that name; else `root` itself is one part, "train".

    Raises:
        OSError: no folder of images, or an image that cannot be read.
        ValueError: images of different sizes within a part, parts of different classes, or only
            one of train/ and test/.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}: images are wanted in {root}/CLASS, or in "
            f"{root}/train/CLASS and {root}/test/CLASS"
        )
    there = [part for part in ("train", "test") if (root / part).is_dir()]
    if len(there) == 2:
        pools = {part: ImageFolderPool(root / part) for part in there}
        classes = [pool.classes for pool in pools.values()]
        if classes[0] != classes[1]:
            different = sorted(set(classes[0]) ^ set(classes[1]))
            raise ValueError(
                f"{root}: train and test must have the same classes; only in one of them: "
                f"{', '.join(different)}"
            )
    elif there and any(entry.is_dir() for entry in (root / there[0]).iterdir()):
        # Taken as it stands it would be one class of that name.
        raise ValueError(f"{root} must hold train and test, or the class folders: only {there[0]}")
    else:
        pools = {"train": ImageFolderPool(root)}
    return {part: (_decoded(pool, root, progress), pool.labels) for part, pool in pools.items()}


def _decoded(pool: ImageFolderPool, root: Path, progress: bool) -> Tensor:
    images = torch.empty(len(pool), *pool[0].shape, dtype=torch.uint8)
    bar = progress_bar(range(len(pool)), show=progress, desc=f"reading {root}", unit="image")
    for position in bar:
        images[position] = pool[position]
    return images


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} x {shape[1]}"
