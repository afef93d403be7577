"""What the tables are made of: rows of a CSV file in, Markdown out."""

from __future__ import annotations

import re
from collections.abc import Iterable

Row = dict[str, str]
OURS = "vaal_ext"


def distinct(rows: Iterable[Row], *columns: str) -> list[tuple[str, ...]]:
    """What these columns hold, each combination once, in the order of the file."""
    return list(dict.fromkeys(tuple(row[column] for column in columns) for row in rows))


def by_threads(rows: Iterable[Row], show) -> str:
    """The cells of the runs with one thread, two threads..., joined; a dash where there is none."""
    ordered = sorted(rows, key=lambda row: int(row["threads"]))
    return " / ".join(show(row) for row in ordered) or "–"


def short(number: str) -> str:
    """1e-06 as 1e-6, 1e+06 as 1e6."""
    return re.sub(r"e(-?)\+?0?", r"e\1", number)
