"""The image files of a project, by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vaal_ext.progress import progress_bar

__all__ = ["ImageFiles"]


class ImageFiles(Dataset[Tensor]):
    """All images below a folder, at any depth, as float32 [3, H, W] in [0, 1].

    ``names`` are their paths below the folder, with "/", sorted; hidden files and folders are left
    out. Images are decoded when they are read.

    Args:
        root: the folder.
        size: scale every image so that its shorter side has this many pixels, and cut a square of
            size x size from its middle; None takes images as they are, all of one size.

    Raises:
        OSError: there is no such folder, or no image in it; later, an image that cannot be read.
        ValueError: later, with ``size=None``, an image that differs in size from the first.
    """

    def __init__(self, root: Path, size: int | None) -> None:
        self.root = root
        self._size = size
        self.names = _image_names(root)
        if not self.names:
            raise FileNotFoundError(f"there is no image in {root}")
        self.shape = tuple(self._decode(self.names[0]).shape)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> Tensor:
        image = self._decode(self.names[position])
        if image.shape != self.shape:
            raise ValueError(
                f"{self.root / self.names[position]} is {image.shape[2]} x {image.shape[1]} where "
                f"the first image is {self.shape[2]} x {self.shape[1]}: give an image size, to "
                "which all are scaled and cut"
            )
        return image

    def read(self, positions: Sequence[int], *, progress: bool) -> Tensor:
        """Some of the images, decoded into memory: float32 [n, 3, H, W]."""
        images = torch.empty(len(positions), *self.shape)
        bar = progress_bar(positions, show=progress, desc="reading images", unit="image")
        for row, position in enumerate(bar):
            images[row] = self[position]
        return images

    def _decode(self, name: str) -> Tensor:
        from torchvision.datasets.folder import default_loader
        from torchvision.transforms import functional

        try:
            image = default_loader(str(self.root / name))
        except OSError as error:
            raise OSError(f"{self.root / name} is no readable image: {error}") from error
        if self._size is not None:
            image = functional.center_crop(functional.resize(image, self._size), self._size)
        decoded: Tensor = functional.to_tensor(image)
        return decoded


def _image_names(root: Path) -> list[str]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    if not root.is_dir():
        raise NotADirectoryError(f"there is no folder {root}")
    names = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in files
            if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(names)
