"""One process at a folder, and a folder that is ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["FolderInUseError", "held", "is_locked", "locked", "make_own"]


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
    with held(folder / ".lock", timeout=0) as mine:
        if not mine:
            raise FolderInUseError(f"another process is at the {what} {folder}")
        yield


def is_locked(folder: Path) -> bool:
    """Whether another process is at `folder`, which need not exist."""
    if not folder.is_dir():
        return False
    with held(folder / ".lock", timeout=0) as mine:
        return not mine


@contextmanager
def held(path: Path, timeout: float) -> Iterator[bool]:
    """Whether the lock could be had in `timeout` seconds (-1: however long it takes)."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def make_own(folder: Path, what: str, first: str) -> None:
    """The folder is there, made if need be, and what lies in it is ours.

    Args:
        folder: the folder; its hidden files are not minded.
        what: what it holds, or is to hold, for the message: "run".
        first: the file that we write before any other: where it is, the folder is ours.

    Raises:
        NotADirectoryError: it is a file. ValueError: it holds something else.
        OSError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    # In this order: who finds another file of ours finds the first.
    others = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    if others and not (folder / first).exists():
        raise ValueError(
            f"{folder} holds no {what} but is not empty ({others[0]}): name a new folder"
        )
