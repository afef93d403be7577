"""What the emulation tests begin with; the kernels are compiled once a session for all of them."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from emulation.harness import Emulation, compile_driver

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@functools.cache
def _built() -> Emulation:
    # The library stays loaded after its file is gone.
    with tempfile.TemporaryDirectory() as folder:
        return Emulation(compile_driver(Path(folder)))


def fresh_emulation() -> Emulation:
    """The compiled kernels with every option at its default, and torch seeded."""
    torch.manual_seed(0)
    built = _built()
    built.misalign = 0
    built.order("forward")
    return built
