"""The image files of a project, by name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vaal_ext.experiment.datasets.folder import ImageFolderPool
from vaal_ext.experiment.datasets.read_image import read_image
from vaal_ext.experiment.datasets.walk import FoundImages
from vaal_ext.labelling.config import ProjectConfig

__all__ = ["ImageFiles"]


class ImageFiles(ImageFolderPool):
    """All images below a folder, as float32 [3, H, W] in [0, 1]; ``names`` are sorted as text.

    Args:
        root, on_unreadable: see :class:`.datasets.folder.ImageFolderPool`; errors too, and a
            ValueError for a name that is not UTF-8.
        size: scale every image so that its shorter side has this many pixels, and cut a square of
            size x size from its middle; None takes images as they are, all of one size.
    """

    _dtype = torch.float32
    _advice = "give an image size, to which all are scaled and cut"

    def __init__(self, root: Path, size: int | None, *, on_unreadable: str = "raise") -> None:
        super().__init__(root, on_unreadable=on_unreadable)
        self._size = size

    @classmethod
    def of(cls, config: ProjectConfig, root: Path | None = None) -> ImageFiles:
        """The images of a project, or those below `root`, read as the project reads its own."""
        root = Path(config.images) if root is None else root
        return cls(root, config.image_size, on_unreadable=config.run.on_unreadable)

    def _in_order(self, found: FoundImages) -> list[str]:
        for name in found.names:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ValueError(
                    f"{self.root}: the name {name!r} is not UTF-8, so no file of answers can hold "
                    "it: rename the image"
                ) from None
        return found.names

    def _read(self, path: Path) -> Tensor:
        from torchvision.transforms import functional

        image = read_image(path)
        if self._size is not None:
            image = functional.center_crop(functional.resize(image, self._size), self._size)
        decoded: Tensor = functional.to_tensor(image)
        return decoded
