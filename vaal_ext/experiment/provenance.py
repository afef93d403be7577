"""Which software and which data a result came from."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

import vaal_ext
from vaal_ext.experiment.datasets.load import DataSplit
from vaal_ext.pool.fingerprint import tensors_sha256

__all__ = ["commit", "fingerprint", "versions"]

_PACKAGE = Path(__file__).resolve().parent.parent


def versions() -> dict[str, str]:
    """The versions that a result depends on, by name."""
    return {
        "vaal_ext": vaal_ext.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """The git commit this package runs from, with ``-dirty`` if files were changed since.

    None where the package is installed outside its own repository, or where there is no git.
    """
    root = _git("rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != _PACKAGE.parent:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def fingerprint(data: DataSplit) -> str:
    """SHA-256, in hex, over the dtype, shape and content of all samples and labels."""
    parts = data.train_x, data.train_y, data.val_x, data.val_y, data.test_x, data.test_y
    return tensors_sha256(parts, lambda x: f"{x.dtype} {tuple(x.shape)} ")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None
