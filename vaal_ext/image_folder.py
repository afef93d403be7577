"""A folder of images as a pool: decoded when they are read, in worker processes if asked for."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["ImageFolderPool"]


class ImageFolderPool(Dataset):
    """The images under `root`, in torchvision's ImageFolder layout (root/CLASS/IMAGE), unlabelled.

    Samples are uint8 [3, H, W], in ImageFolder's order: classes by name, then files by name. The
    folders' names are not used otherwise: a pool without labels is one folder in `root`.

    Raises:
        OSError: there is no such folder, or no folder of images in it; later, an image that cannot
            be read.
        ValueError: later, an image that differs in size from the first.
    """

    def __init__(self, root: Path) -> None:
        from torchvision.datasets import ImageFolder
        from torchvision.transforms.functional import pil_to_tensor

        self._folder = ImageFolder(str(root), transform=pil_to_tensor)
        self._shape = self._folder[0][0].shape

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, position: int) -> Tensor:
        path = self._folder.samples[position][0]
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


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} x {shape[1]}"
