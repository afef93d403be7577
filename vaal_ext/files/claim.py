"""Folders that one process works in at a time, and that hold nothing but what we put there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["FolderInUseError", "held", "is_locked", "locked", "make_own"]


class FolderInUseError(ValueError):
    """Another process works in this folder."""


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Locks `folder` for this process while the block runs. The system unlocks it when a process
    ends, also when it is killed.

    Args:
        folder: it must exist; it gets a file ``.lock``.
        what: what the folder holds, as the message calls it: "run".

    Raises:
        FolderInUseError: another process has locked it.
    """
    with held(folder / ".lock", timeout=0) as mine:
        if not mine:
            raise FolderInUseError(f"another process is at the {what} {folder}")
        yield


def is_locked(folder: Path) -> bool:
    """Whether another process has locked `folder`, which need not exist."""
    if not folder.is_dir():
        return False
    with held(folder / ".lock", timeout=0) as mine:
        return not mine


@contextmanager
def held(path: Path, timeout: float) -> Iterator[bool]:
    """Takes the lock at `path` while the block runs, and gives whether it was to be had within
    `timeout` seconds (-1: it waits however long it takes)."""
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
    """Makes the folder if need be, and refuses one that holds files of something else.

    Args:
        folder: the folder; hidden files in it do not count.
        what: what it holds or is to hold, as the message calls it: "run".
        first: the name of the file that is written before any other. A folder that has files, but
            not this one, belongs to something else.

    Raises:
        NotADirectoryError: it is a file. ValueError: it holds something else.
        OSError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    # The files are listed before `first` is looked for. The other way round, a process that begins
    # here at this moment could write `first` and a second file in between.
    others = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    if others and not (folder / first).exists():
        raise ValueError(
            f"{folder} holds no {what} but is not empty ({others[0]}): name a new folder"
        )
