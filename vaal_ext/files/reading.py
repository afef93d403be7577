"""Files read back with distrust: whole by their own checksums, and no larger than memory.

For a bad file every reader raises a ValueError whose text is the reason alone, in one line; the
caller puts the file's name before it and says how to go on. Where the file cannot be opened, the
OSError of `open` passes. Nothing is ever unpickled but tensors, numbers and text.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaal_ext.cuda.memory import available_memory

__all__ = [
    "load_npz", "load_torch", "map_npy", "parse_json", "require_finite", "require_memory",
]  # fmt: skip

_CHUNK = 1 << 20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# The attribute bit that marks an entry of a zip file as a folder. torch reads such an entry as
# empty, zipfile reads what it holds.
_DIRECTORY = 0x10


def load_torch(path: str | os.PathLike[str]) -> Any:
    """What ``torch.save`` wrote, on the CPU.

    torch.save writes checksums (CRC-32) that torch.load does not compare; here they are. Files
    from before torch 1.6 and those saved with ``set_crc32_options(False)`` have none.

    Raises:
        ValueError: it is damaged, holds more than tensors, numbers and text, or more than memory.
    """
    with open(path, "rb") as file, _refused_in_a_line():
        if file.read(4) == b"PK\x03\x04" or zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                _require_whole(archive)
        file.seek(0)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        # A damaged file, or one with other objects, may raise any kind of error.
        except Exception as error:
            refused = re.search(r"GLOBAL (\S+)", str(error))
        # Raised outside the except block, so that no traceback shows torch's own error: that
        # explains how to unpickle the file in spite of the danger.
        named = f" (here {refused[1]})" if refused else ""
        raise ValueError(
            "it was not written by torch.save, is damaged, or holds more than tensors, numbers and "
            f"text{named}, which is never unpickled"
        )


def load_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, of any shape and dtype.

    Raises:
        ValueError: it is no .npz, is damaged, holds pickled objects, or more than memory.
    """
    with open(path, "rb") as file, _refused_in_a_line():
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz (zip) file, or it is truncated")
        archive = zipfile.ZipFile(file)
        arrays = {}
        for info in _entries(archive):
            with archive.open(info) as part:  # refuses an entry whose two names differ
                if info.filename.endswith(".npy"):
                    arrays[info.filename.removesuffix(".npy")] = _array(part, info.file_size)
        return arrays


def map_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of an .npy file, of any shape and dtype, mapped: what of the file is used is read
    when it is used. (The format has no checksum.)

    Raises:
        ValueError: the file has no header of an .npy, or one that does not fit its length, or it
            holds pickled objects.
    """
    with open(path, "rb") as file, _refused_in_a_line():
        shape, order, dtype = _header(file, os.fstat(file.fileno()).st_size)
        if math.prod(shape) * dtype.itemsize == 0:
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "r", file.tell(), shape, order)


def parse_json(text: str) -> Any:
    """What ``json.loads`` gives. ValueError also where it is nested too deeply for Python."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def require_memory(size: int) -> None:
    """ValueError where less than `size` bytes of memory are free. (Only Linux says how many.)"""
    free = math.inf
    with suppress(ValueError):  # where the system does not say
        free = available_memory(torch.device("cpu"))
    if size > free:
        gib = 1 << 30
        raise ValueError(f"it takes {size / gib:.1f} GiB of memory, {free / gib:.1f} GiB are free")


def require_finite(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """ValueError naming the first of the named tensors, of any shape and dtype, that holds NaN or
    an infinity."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.itemsize == 1:
            tensor = tensor.float()  # isfinite does not know every format of eight bits
        if not torch.isfinite(tensor.detach()).all():
            raise ValueError(f"{name} holds NaN or an infinity")


@contextmanager
def _refused_in_a_line() -> Iterator[None]:
    """Turns any error of the block into a ValueError with one line of text: what a library raises
    over a damaged file may be anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what a damaged file looks like inside
            yield
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(reason or type(error).__name__) from error


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The entries of a zip file.

    ValueError where the table of contents is damaged in a way that zipfile overlooks, or the
    entries take more memory than there is.
    """
    entries = archive.infolist()
    for info in entries:
        # With a damaged length, an entry's fields may swallow the entry that follows.
        hidden = b"PK\x01\x02" in info.extra + info.comment
        if hidden or info.external_attr & _DIRECTORY:
            raise ValueError("its table of contents is damaged")
    require_memory(sum(info.file_size for info in entries))
    return entries


def _require_whole(archive: zipfile.ZipFile) -> None:
    """ValueError where an entry does not fit its checksum. A file whose checksums are all 0 was
    saved without, and passes."""
    if any(info.CRC for info in _entries(archive)):
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"its part {damaged} does not have its checksum")


def _array(part: IO[bytes], size: int) -> np.ndarray:
    shape, order, dtype = _header(part, size)
    content = bytearray(size - part.tell())
    for start in range(0, len(content), _CHUNK):
        piece = part.read(min(_CHUNK, len(content) - start))
        content[start : start + len(piece)] = piece
    part.read(1)  # zipfile compares the checksum when it meets the end
    return np.ndarray(shape, dtype, content, order=order)


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    """Shape, order and dtype of the .npy of `size` bytes in `file`, which is then read up to the
    data.

    The header must fit the size, so that a damaged one cannot ask for memory without end.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the .npy format is not read")
    try:
        shape, fortran, dtype = _HEADERS[version](file)
    except Exception as error:  # NumPy parses the header as Python, which may raise anything
        raise ValueError("its header is damaged") from error
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    wanted = file.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or wanted != size:
        raise ValueError(
            f"its header says {dtype} {list(shape)}, which takes {wanted} bytes; it has {size}"
        )
    return shape, "F" if fortran else "C", dtype
