"""What `vaal-ext info` prints: enough to answer "what did I build, and what does it run on?"."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from vaal_ext import __version__

__all__ = ["describe"]

_PACKAGE = Path(__file__).resolve().parents[2]
_LIBRARIES = ("_ops_cpu", "_ops_cuda", "_C")


def describe() -> Iterator[tuple[str, str]]:
    """Pairs (what, value) about versions, libraries, the build and devices; never raises on a
    broken build, but says what is missing."""
    yield "vaal_ext", f"{__version__} in {_PACKAGE}"
    yield "python", f"{platform.python_version()} ({platform.platform()})"
    for name in ("torch", "numpy", "torchvision"):
        yield name, _version(name)
    for name in _LIBRARIES:
        found = [path for end in ("so", "pyd", "dll") for path in _PACKAGE.rglob(f"{name}.*{end}")]
        yield f"library {name}", ", ".join(map(str, found)) or "missing"
    yield "kernels", _kernels()
    yield from _build()
    yield from _devices()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _kernels() -> str:
    try:
        ops = importlib.import_module("vaal_ext.ops._library")
    except ImportError as error:
        return f"not usable: {error}"
    return "load, for CPU and CUDA" if ops.HAS_CUDA else "load, for CPU"


def _build() -> Iterator[tuple[str, str]]:
    try:
        config = importlib.import_module("vaal_ext._C").build_config()
    except ImportError as error:
        yield "build", f"not usable ({error})"
        return
    for key, value in config.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        yield f"build {key.replace('_', ' ')}", text or "none"


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    yield "cpu threads", str(torch.get_num_threads())
    yield "torch's CUDA", torch.version.cuda or "none (a CPU build)"
    if not torch.cuda.is_available():
        yield "CUDA devices", "none"
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield (
            f"CUDA device {index}",
            f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
            f"{properties.total_memory / 2**30:.1f} GiB",
        )
