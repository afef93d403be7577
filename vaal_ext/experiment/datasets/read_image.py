"""An image file as what a person would see: one reader for pools, labelled data and projects."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["UnreadableImageError", "read_image"]

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # of the tags of a TIFF
_WHITE_IS_ZERO = 0


class UnreadableImageError(OSError):
    """A file that is no image that can be read; the message names it and says why, in a line."""


def read_image(path: Path) -> Image:
    """The image, of mode RGB: eight bits a channel.

    It is turned as its EXIF orientation says. Grey values of 16 bits are scaled from their full
    range; of colours with 16 bits the upper eight are kept. Where an image is transparent, white
    shows through. Of a file with several frames it is the first.

    Raises:
        UnreadableImageError: whatever a decoder raises at a damaged file; an image of so many
            pixels that Pillow takes it for a decompression bomb; grey values whose range the file
            does not tell (floats, and integers of 32 bits other than those of a PNG or PGM).
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Of a large image, of damaged metadata: the pixels are right, or it is an error.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                rgb = _rgb(_turned(image), _grey_range(image))
    except Exception as error:  # whatever a damaged file leads a decoder to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"{path} is no readable image: {reason}") from error
    return rgb


def _grey_range(image: Image) -> tuple[int, int] | None:
    """The values of black and white where grey has more than eight bits, else None.

    ValueError where the file does not tell them.
    """
    if not image.mode.startswith(("I", "F")):
        return None
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        (bits,) = tags.get(_BITS_PER_SAMPLE, (16,))
        white = 2**bits - 1
    elif image.mode == "I" and image.format in ("PNG", "PPM"):
        white = 2**16 - 1  # to which Pillow scales both, a PGM of fewer bits too
    else:
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ValueError(f"the range of its {kind} grey values is not known: save it with 16 bits")
    return (white, 0) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else (0, white)


def _turned(image: Image) -> Image:
    """The image upright, as its EXIF orientation says; as it is where its EXIF data are damaged."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # viewers show such an image, without turning it
        return image


def _rgb(image: Image, grey_range: tuple[int, int] | None) -> Image:
    from PIL import Image

    if grey_range is not None:
        black, white = grey_range
        grey = (np.asarray(image, dtype=np.float64) - black) * (255 / (white - black))
        return Image.fromarray(np.rint(grey.clip(0, 255)).astype(np.uint8)).convert("RGB")
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
