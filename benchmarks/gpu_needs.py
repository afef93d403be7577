"""What `make gpu` needs of a machine, asked in seconds: a line for each, and what is missing last.

    python benchmarks/gpu_needs.py [--device cuda]

The status is 1 if something is missing. With --device cpu (a rehearsal) neither a GPU nor its tools
are asked for. Nothing of vaal_ext is imported, so that this speaks where nothing is built yet.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "csrc"))
from toolchain import find_nvcc

# name -> the oldest version that will do
PACKAGES = {
    "torch": "2.11",  # of the package, from here
    "filelock": "0",
    "numpy": "0",
    "tqdm": "0",
    "typer": "0",
    "setuptools": "77",  # of the build, from here
    "ninja": "0",
    "pybind11": "2.13",
    "pytest": "0",  # of the tests
    "hypothesis": "0",
    "pillow": "0",  # of bench_pool.py, with torchvision
    "torchvision": "0",
}


class Missing(Exception):
    """Says what was found instead."""


def package(name: str, oldest: str) -> str:
    try:
        found = version(name)
    except PackageNotFoundError:
        raise Missing("not installed") from None
    if _numbers(found) < _numbers(oldest):
        raise Missing(f"found {found}, needs {oldest}")
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def header() -> str:
    path = Path(sysconfig.get_path("include"), "Python.h")
    if not path.exists():
        raise Missing(f"no {path} (Debian, Ubuntu: python3-dev)")
    return str(path)


def compiler() -> str:
    return _says([os.environ.get("CXX", "c++"), "--version"])[0]


def nvcc() -> str:
    found, why = find_nvcc()
    if found is None:
        raise Missing(why)
    return f"{found}, {_says([found, '--version'])[-1]}"


def command(name: str) -> str:
    return _says([name, "--version"])[-1]


def _says(words: list[str]) -> list[str]:
    if shutil.which(words[0]) is None:
        raise Missing(f"no {words[0]} on PATH")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Missing(f"{' '.join(words)} fails: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout.strip().splitlines() or [""]


def gpu() -> str:
    try:
        import torch
    except ImportError as error:
        raise Missing(f"torch cannot be imported: {error}") from None
    if not torch.cuda.is_available():
        raise Missing(f"torch {torch.__version__} sees no CUDA device")
    free, total = (number / 2**30 for number in torch.cuda.mem_get_info())
    major, minor = torch.cuda.get_device_capability()
    return (
        f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, {free:.0f} of "
        f"{total:.0f} GiB free, CUDA {torch.version.cuda} of torch"
    )


def needs(device: str) -> dict[str, Callable[[], str]]:
    """What is needed -> what tells that it is there, or raises Missing."""
    asked: dict[str, Callable[[], str]] = {
        name: partial(package, name, oldest) for name, oldest in PACKAGES.items()
    }
    asked |= {"Python.h": header, "C++ compiler": compiler, "nvcc": nvcc}
    if device == "cuda":
        asked |= {"compute-sanitizer": partial(command, "compute-sanitizer"), "GPU": gpu}
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    missing = []
    print(f"{'Python':18} {sys.version.split()[0]}, {sys.executable}")
    for name, tell in needs(parser.parse_args().device).items():
        try:
            print(f"{name:18} {tell()}")
        except Missing as reason:
            missing.append(name)
            print(f"{name:18} MISSING: {reason}")
    if missing:
        print(f"missing: {', '.join(missing)}")
        sys.exit(1)
    print("nothing is missing")


if __name__ == "__main__":
    main()
