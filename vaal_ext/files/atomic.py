"""Files that appear whole or not at all."""

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

    A reader sees the old file or the new one, never a part. When the block or the writing fails
    (also by KeyboardInterrupt or a full disk) the temporary file is removed and `path` is as it
    was. A symbolic link is written through, as `open` would.

    Args:
        path: the file to write. Its folder must exist.
        mode: "wb" for bytes, "w" for UTF-8 text, whose line ends are written as they are.

    Raises:
        ValueError: another mode.
        OSError: one of the block, or what `open` would raise, before the block runs, or for a
            `path` that is there and is no regular file (a rename would put a file in the place of
            /dev/null); it names `path`, see :func:`naming`.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be 'wb' or 'w', got {mode!r}")
    with naming(path), _whole(Path(os.path.realpath(path)), mode) as file:
        yield file


def write_tensors(path: str | os.PathLike[str], content: Any) -> None:
    """Replaces the file by what ``torch.save`` makes of `content`, whole or not at all.

    It is made in memory first: of a full disk torch's own writer makes an error of its C++ code.

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
    # A name of fixed length, so that a target with the longest legal name works too. Not
    # tempfile: that makes files private to the user, and these are to have the usual rights.
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
    """A full disk or a missing permission is reported with the file it kept from us.

    Raises:
        OSError: one of the block, of its own kind and number: "cannot write PATH: the reason".
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
    """Removes the temporary files of writes that a kill interrupted, `older_than` seconds ago.

    A write that is going on would lose its file: the age is for who does not write alone.
    """
    for leftover in folder.glob(f".{'[0-9a-f]' * 16}.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime >= older_than:
                leftover.unlink()
