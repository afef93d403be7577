"""Files with one bit flipped, at places spread over them, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def flipped(path: Path, count: int) -> Iterator[int]:
    """The file with one bit flipped, `count` times over; each time the byte. Then as it was."""
    whole = path.read_bytes()
    for i in range(count):
        place = (2 * i + 1) * len(whole) // (2 * count)
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (i * 5) % 8
        path.write_bytes(damaged)
        yield place
    path.write_bytes(whole)


def flip(path: Path, place: int) -> None:
    """One bit of that byte of the file, counted from the end where negative."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
