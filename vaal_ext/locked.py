"""One process at a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["FolderInUseError", "locked"]


class FolderInUseError(ValueError):
    """Another process is at this folder."""


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """No other process can hold `folder` inside the block; a killed process lets go.

    Args:
        folder: it must exist; it gets a file ``.lock``.
        what: what it holds, for the message: "run".

    Raises:
        FolderInUseError: another process is at it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUseError(f"another process is at the {what} {folder}") from None
    try:
        yield
    finally:
        lock.release()
