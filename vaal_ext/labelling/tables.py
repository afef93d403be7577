"""The three tables of a project: what their rows are, and how they are read and written."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

from vaal_ext.files.checksums import is_lost, read_recorded, write_recorded

__all__ = ["Asked", "Given", "Training", "read_rows", "write_rows"]

Row = TypeVar("Row", bound="Asked | Given | Training")


@dataclass(frozen=True)
class Asked:
    """An image that a query asked for: a row of ``queries.csv``.

    ``guess`` is the network's class; ``ldr`` and ``entropy`` are in nats, ``percentile_rank`` in
    percent of the pool of that query. They are "" where the query was random.
    """

    query: int
    image: str
    guess: str
    ldr: str
    percentile_rank: str
    entropy: str


@dataclass(frozen=True)
class Given:
    """An answer that was taken: a row of ``labels.csv``.

    ``label`` is a class or "skip", ``before`` the answer it replaced or "", ``source`` the name of
    the file it came in.
    """

    image: str
    label: str
    before: str
    source: str


@dataclass(frozen=True)
class Training:
    """A row of ``trainings.csv``: the network trained after `query` queries.

    ``labels`` were trained on, ``evaluated`` others (of the test folder, or held out) evaluated;
    ``accuracy`` in [0, 1] and ``loss`` in nats are theirs, "" where there were none.
    ``inputs_sha256`` stands for labels and settings.
    """

    training: int
    query: int
    labels: int
    evaluated: int
    accuracy: str
    loss: str
    train_loss: float
    seconds: float
    inputs_sha256: str


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a table, none where it was not yet written.

    Raises:
        ValueError: the table is damaged, or is missing though it was written.
    """
    if is_lost(path):
        raise ValueError(
            f"{path} is missing: put back a copy of it; or, if the project is to go on without "
            f"what it held, delete {path.parent / '.checksums.json'}"
        )
    if not path.exists():
        return []
    convert = {"int": int, "float": float, "str": str}
    columns = {field.name: convert[str(field.type)] for field in fields(kind)}
    text = read_recorded(path)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if reader.fieldnames != list(columns):
            raise ValueError(f"its columns must be {', '.join(columns)}")
        return [
            kind(**{key: convert(row[key]) for key, convert in columns.items()}) for row in reader
        ]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def write_rows(path: Path, kind: type[Row], rows: Sequence[Row]) -> None:
    """Replace the table by these rows, whole or not at all. OSError naming the file."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([field.name for field in fields(kind)])
    writer.writerows(tuple(asdict(row).values()) for row in rows)
    write_recorded(path, table.getvalue().encode())
