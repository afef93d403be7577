"""Where the tests marked `data` find real files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data(name: str) -> Path:
    """The file or folder of that name among the real data; the test is skipped without it."""
    default = Path(__file__).parents[3] / "shared" / "data"
    path = Path(os.environ.get("VAAL_TEST_DATA", default)) / name
    if not path.exists():
        pytest.skip(f"{path} is not there (set VAAL_TEST_DATA)")
    return path
