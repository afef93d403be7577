"""The options that all benchmarks have, checked before anything is measured."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from vaal_ext.network.device import device_named


def parser(doc: str, *, threads: bool = True) -> argparse.ArgumentParser:
    """A parser with --device, --csv and (if `threads`) --threads, named by the doc's first line.

    Without --threads `args.threads` is None: see `threads_of`. A bad value ends the process with
    status 2 and a line that says what was expected.
    """
    made = argparse.ArgumentParser(description=doc.partition("\n")[0])
    made.add_argument("--device", type=_device, default=torch.device("cpu"))
    if threads:
        made.add_argument("--threads", type=positive, nargs="+")
    made.add_argument("--csv", type=_file, help="write the table to this file")
    return made


def threads_of(args: argparse.Namespace) -> list[int]:
    """The numbers of threads asked for; else 1 and 2 on a CPU with two cores, and 1 with CUDA."""
    if args.threads:
        return args.threads
    return [1, 2] if args.device.type == "cpu" and (os.cpu_count() or 1) > 1 else [1]


def positive(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def several(text: str) -> int:
    """An integer of at least 2."""
    if positive(text) < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, got {text}")
    return int(text)


def _device(text: str) -> torch.device:
    try:
        return device_named(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _file(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path
