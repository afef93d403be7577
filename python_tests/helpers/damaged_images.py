"""Folders of small images, some of which no decoder reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

FLAT = [f"{i}.png" for i in range(9)]

DAMAGED = b"\x89PNG\r\n\x1a\n\0\0\0\4IHDR\0\0\0\4"  # Pillow: "Truncated IHDR", a ValueError


def write_images(root: str, names: list[str]) -> np.ndarray:
    """RGB of 4 x 1 pixels, the 12 numbers that the network of the command line takes: uint8 [N, 3,
    1, 4]."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (len(names), 1, 4, 3), dtype=np.uint8)
    for name, image in zip(names, pixels, strict=True):
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return pixels.transpose(0, 3, 1, 2)


def damage(*paths: str) -> None:
    for path in paths:
        Path(path).write_bytes(DAMAGED)
