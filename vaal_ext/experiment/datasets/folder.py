"""Folders of images: as a pool, at any depth, and as labelled data in ImageFolder's layout."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vaal_ext.experiment.datasets.read_image import UnreadableImageError, read_image
from vaal_ext.experiment.datasets.walk import FoundImages, find_images, is_hidden
from vaal_ext.progress import progress_bar

__all__ = ["ImageFolderPool", "labelled_parts"]


class ImageFolderPool(Dataset[Tensor | None]):
    """All images below `root`, at any depth, unlabelled: a flat folder, or one of folders.

    They are decoded when they are read, in worker processes if asked for. Samples are uint8
    [3, H, W], see :func:`.read_image.read_image`. ``names`` are their paths below
    `root`, with "/". The images of the folders in `root` come first, in the order of torchvision's
    ImageFolder (by the folder in `root`, then by the whole folder, then by file); those that lie in
    `root` itself come last.

    Args:
        root: the folder; for what is found in it see :func:`.walk.find_images`.
        on_unreadable: "raise", or "skip": then an image that cannot be read is None as a sample.

    Raises:
        OSError: there is no such folder, or no image in it; later, an image that cannot be read.
        ValueError: another `on_unreadable`; later, an image that differs in size from the first.
    """

    _dtype = torch.uint8
    _advice = "a network's batch needs one size, so scale or crop the images first"

    def __init__(self, root: Path, *, on_unreadable: str = "raise") -> None:
        if on_unreadable not in ("raise", "skip"):
            raise ValueError(f"on_unreadable must be 'raise' or 'skip', got {on_unreadable!r}")
        self.root = root
        self.names = self._in_order(find_images(root))
        self._skip = on_unreadable == "skip"
        if not self.names:
            raise FileNotFoundError(f"there is no image in {root}")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> Tensor | None:
        path = self.root / self.names[position]
        try:
            image = self._read(path)
        except UnreadableImageError:
            if self._skip:
                return None
            raise
        if image.shape != self.shape:
            raise ValueError(
                f"{path} is {_size(image.shape)} where the first image is {_size(self.shape)}: "
                f"{self._advice}"
            )
        return image

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """[3, H, W], that of the first image (with "skip", of the first that can be read). OSError
        where there is none."""
        for name in self.names:
            try:
                return tuple(self._read(self.root / name).shape)
            except UnreadableImageError:
                if not self._skip:
                    raise
        raise FileNotFoundError(f"none of the {len(self)} images in {self.root} can be read")

    def read(
        self, positions: Sequence[int], *, progress: bool, desc: str = "reading images"
    ) -> tuple[Tensor, list[int]]:
        """Some of the images, in memory: uint8 [n, 3, H, W] (ImageFiles: float32), and the places
        read: all n, or with "skip" those of images that can be read. `desc` is the bar's text.
        """
        images = torch.empty(len(positions), *self.shape, dtype=self._dtype)
        read: list[int] = []
        for position in progress_bar(positions, show=progress, desc=desc, unit="image"):
            image = self[position]
            if image is not None:
                images[len(read)] = image
                read.append(position)
        return images[: len(read)], read

    def unreadable(self, positions: Iterable[int]) -> list[str]:
        """A line for each image at these positions that cannot be read, with its name and why."""
        lines = []
        for position in positions:
            try:
                read_image(self.root / self.names[position])
            except UnreadableImageError as error:
                lines.append(str(error))
        return lines

    def _in_order(self, found: FoundImages) -> list[str]:
        return sorted(found.names, key=_in_image_folder)

    def _read(self, path: Path) -> Tensor:
        from torchvision.transforms.functional import pil_to_tensor

        image: Tensor = pil_to_tensor(read_image(path))
        return image


def labelled_parts(
    root: Path, progress: bool, on_unreadable: str = "raise"
) -> dict[str, tuple[Tensor, Tensor]]:
    """All images in the class folders under `root`, decoded, with the position of their class among
    these, by name: uint8 [N, 3, H, W] and int64 [N].

    Where `root` holds both train/ and test/, each with class folders, these are two parts of that
    name; else `root` itself is one part, "train". Images beside the folders belong to no class: a
    warning counts them, and names the first. With ``on_unreadable="skip"`` so it does with images
    that cannot be read.

    Raises:
        OSError: no class folders, one without images, or an image that cannot be read.
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
        beside = [
            entry.name
            for entry in sorted(root.iterdir())
            if entry.name not in there and not is_hidden(entry.name)
        ]
        if beside:
            warnings.warn(
                f"{root} is read as train and test; {len(beside)} more in it are left out "
                f"({beside[0]})",
                stacklevel=2,
            )
        parts = {part: _Labelled(root / part, on_unreadable=on_unreadable) for part in there}
        classes = [part.classes for part in parts.values()]
        if classes[0] != classes[1]:
            different = sorted(set(classes[0]) ^ set(classes[1]))
            raise ValueError(
                f"{root}: train and test must have the same classes; only in one of them: "
                f"{', '.join(different)}"
            )
    elif there and any(
        entry.is_dir() and not is_hidden(entry.name) for entry in (root / there[0]).iterdir()
    ):
        # Taken as it stands it would be one class of that name.
        raise ValueError(f"{root} must hold train and test, or the class folders: only {there[0]}")
    else:
        parts = {"train": _Labelled(root, on_unreadable=on_unreadable)}
    return {name: part.decoded(progress) for name, part in parts.items()}


class _Labelled(ImageFolderPool):
    """The images of a folder that lie in folders in it, which are its `classes`, by name."""

    def _in_order(self, found: FoundImages) -> list[str]:
        names = super()._in_order(found)
        inside = [name for name in names if "/" in name]
        if not inside:
            raise FileNotFoundError(
                f"there is no image in a class folder in {self.root}: they are wanted in "
                f"{self.root}/CLASS"
            )
        empty = sorted(set(found.folders) - {_class(name) for name in inside})
        if empty:
            raise FileNotFoundError(
                f"{self.root}: there is no image in the class folders {', '.join(empty)}"
            )
        if len(inside) < len(names):
            warnings.warn(
                f"{self.root}: {len(names) - len(inside)} images lie beside the class folders and "
                f"are left out ({names[len(inside)]})",
                stacklevel=2,
            )
        self.classes = found.folders
        return inside

    def decoded(self, progress: bool) -> tuple[Tensor, Tensor]:
        """All that can be read: uint8 [N, 3, H, W], and the positions of their classes int64 [N];
        a warning names the others."""
        every = range(len(self))
        images, read = self.read(every, progress=progress, desc=f"reading {self.root}")
        for line in self.unreadable(sorted(set(every) - set(read))):
            warnings.warn(f"left out: {line}", stacklevel=2)
        number = {name: i for i, name in enumerate(self.classes)}
        return images, torch.tensor([number[_class(self.names[position])] for position in read])


def _class(name: str) -> str:
    return name.partition("/")[0]


def _in_image_folder(name: str) -> tuple[bool, str, str, str]:
    """The key that sorts images like torchvision's ImageFolder, those outside of folders last."""
    folder, _, file = name.rpartition("/")
    return not folder, folder.partition("/")[0], folder, file


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} x {shape[1]}"
