"""One process at a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["FolderInUseError", "is_locked", "locked"]


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


def is_locked(folder: Path) -> bool:
    """Whether another process is at `folder`, which need not exist."""
    if not folder.is_dir():
        return False
    try:
        with locked(folder, "folder"):
            return False
    except FolderInUseError:
        return True
