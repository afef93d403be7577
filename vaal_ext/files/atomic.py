"""Files that are replaced in one step: a reader meets the old one or the new one, never a part."""

from __future__ import annotations

import io
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

__all__ = [
    "naming",
    "remove_leftovers",
    "require_writable",
    "write_atomically",
    "write_tensors",
]


@contextmanager
def write_atomically(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path` and renames it to `path` when the block ends.

    When the block or the writing fails (also by KeyboardInterrupt or a full disk), the temporary
    file is removed and `path` is as it was. Where `path` is a symbolic link, the file that it
    points to is replaced, and the link stays.

    Args:
        path: the file to write. Its folder must exist.
        mode: "wb" for bytes, "w" for UTF-8 text, whose line ends are written as they are.

    Raises:
        ValueError: another mode.
        OSError: the file cannot be made, written or renamed, the block raised one, or `path` is
            something other than a regular file (renaming onto /dev/null, say, would replace it).
            The message names `path`, see :func:`naming`.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be 'wb' or 'w', got {mode!r}")
    with naming(path), _whole(Path(os.path.realpath(path)), mode) as file:
        yield file


def write_tensors(path: str | os.PathLike[str], content: Any) -> None:
    """Replaces the file by what ``torch.save`` makes of `content`, whole or not at all.

    The bytes are made in memory first. Written straight to a full disk, torch.save would raise a
    RuntimeError from its C++ code that does not say the disk is full.

    Raises:
        OSError: the file cannot be written; it names `path`, see :func:`naming`.
    """
    made = io.BytesIO()
    torch.save(content, made)
    with write_atomically(path) as file:
        file.write(made.getbuffer())


@contextmanager
def _whole(target: Path, mode: str) -> Iterator[IO[Any]]:
    if target.is_dir():
        raise IsADirectoryError("it is a folder")
    if target.exists() and not target.is_file():
        raise OSError("it is not a regular file")
    # The temporary name has a fixed length: made from the target's, it could be longer than the
    # file system allows. The module tempfile would let nobody but the user read the file.
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    text: dict[str, Any] = {"encoding": "utf-8", "newline": ""} if mode == "w" else {}
    try:
        with open(temporary, mode.replace("w", "x"), **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes an OSError of the block (a full disk, say) name the file that could not be written.

    Raises:
        OSError: of the class and errno of the block's, with the text "cannot write PATH: reason".
    """
    try:
        yield
    except OSError as error:
        named = type(error)(f"cannot write {path}: {error.strerror or error}")
        named.errno = error.errno
        raise named from error


def require_writable(path: Path) -> None:
    """OSError where no file can be made in the folder of `path`, or `path` is a folder."""
    with naming(path):
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        with tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path))):
            pass


def remove_leftovers(folder: Path, *, older_than: float = 0.0) -> None:
    """Removes the temporary files that killed processes left in the folder.

    Only files last changed at least `older_than` seconds ago are removed. Where other processes
    write to the folder too, it must be longer than any write takes, or they would lose theirs.
    """
    for leftover in folder.glob(f".{'[0-9a-f]' * 16}.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime >= older_than:
                leftover.unlink()
