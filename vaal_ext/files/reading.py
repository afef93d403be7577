"""Files read back: proved whole by the checksums they bring, and never more than memory holds.

Every reader gives a ValueError whose text is the reason alone, in one line; the caller puts the
file's name before it and says how to go on. OSError is what `open` raises. Nothing is ever
unpickled but tensors, numbers and text.
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
_DIRECTORY = 0x10  # of DOS's attributes: torch reads such an entry as empty, zipfile does not


def load_torch(path: str | os.PathLike[str]) -> Any:
    """What ``torch.save`` wrote, on the CPU.

    torch.load itself skips the checksums (CRC-32) that torch.save writes: they are looked at here.
    A file of before torch 1.6, or one that was saved with ``set_crc32_options(False)``, has none.

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
        # A damaged file or one with other objects ends in many kinds of errors.
        except Exception as error:
            refused = re.search(r"GLOBAL (\S+)", str(error))
        # Out of the except block: torch's own text, which shows how to unpickle the file
        # nevertheless, is in no traceback.
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
            with archive.open(info) as part:  # which compares the two places of its name
                if info.filename.endswith(".npy"):
                    arrays[info.filename.removesuffix(".npy")] = _array(part, info.file_size)
        return arrays


def map_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of an .npy, of any shape and dtype, mapped: read when it is used. The format has
    no checksum.

    Raises:
        ValueError: its header is no .npy's, or does not fit its length; it holds pickled objects.
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
    """ValueError where `size` bytes are more than can be had without swapping (on Linux)."""
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
    """Whatever a damaged file leads a library to raise is a ValueError of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what a damaged file looks like inside
            yield
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(reason or type(error).__name__) from error


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """What a zip file holds. ValueError where its table of contents is damaged, as far as zipfile
    does not see it itself; or where it unpacks to more than memory."""
    entries = archive.infolist()
    for info in entries:
        hidden = b"PK\x01\x02" in info.extra + info.comment  # the entry that follows, swallowed
        if hidden or info.external_attr & _DIRECTORY:
            raise ValueError("its table of contents is damaged")
    require_memory(sum(info.file_size for info in entries))
    return entries


def _require_whole(archive: zipfile.ZipFile) -> None:
    """ValueError unless every part has its checksum, where any part has one."""
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
    part.read(1)  # at its end zipfile compares the checksum
    return np.ndarray(shape, dtype, content, order=order)


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    """Shape, order and dtype of the .npy of `size` bytes in `file`, which then stands at the data.

    Nothing is allocated by what the header says before it fits the size.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the .npy format is not read")
    try:
        shape, fortran, dtype = _HEADERS[version](file)
    except Exception as error:  # of the many kinds that parsing a damaged text as Python ends in
        raise ValueError("its header is damaged") from error
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    wanted = file.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or wanted != size:
        raise ValueError(
            f"its header says {dtype} {list(shape)}, which takes {wanted} bytes; it has {size}"
        )
    return shape, "F" if fortran else "C", dtype
