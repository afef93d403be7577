"""CSV tables, as the tests read them."""

from __future__ import annotations

import csv
from pathlib import Path


def rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table by the names of its columns."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
