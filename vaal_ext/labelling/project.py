"""The folder of a project: what lies in it, and in which order it is written.

``config.json``    the settings; may be edited between two commands
``queries.csv``    every image that was ever asked for, with the scores it was asked for by
``labels.csv``     every answer that was ever taken; of an image's answers the last one counts
``trainings.csv``  one row for every training
``weights_N.pt``   the state dict of the network of training N; none is ever deleted
``network.py``     a factory for that network: ``vaal-ext score --model network:network``
``query_N.*``      query N for those who label, see :mod:`vaal_ext.labelling.handout`
``not_taken.csv``  the answers that ``vaal-ext label`` last refused, to be mended and given again
``.checksums.json`` the SHA-256 of the three tables, see :mod:`vaal_ext.checksums`
``.lock``          held by the process that is at the project

Every file is replaced by an atomic rename. The three tables are the state: the rename of one
commits a step, and what else the step writes is written before it, or made again from it.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from vaal_ext.atomic import remove_leftovers, write_atomically
from vaal_ext.checksums import read_recorded, write_recorded
from vaal_ext.labelling.config import SKIP, ProjectConfig
from vaal_ext.locked import foreign_file, locked
from vaal_ext.reading import parse_json

__all__ = ["Asked", "Given", "Project", "Training"]

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


class Project:
    """A project that has begun. Its tables are read when asked for.

    Raises:
        ValueError: the folder holds no project, or its ``config.json`` is no good.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        file = path / "config.json"
        if not file.is_file():
            raise ValueError(
                f"{path} holds no project; begin one with: vaal-ext query --project "
                f"{shlex.quote(str(path))} --data folder:PATH --classes A,B,..."
            )
        try:
            settings = parse_json(file.read_text(encoding="utf-8"))
            self.config = ProjectConfig.from_settings(settings)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def begin(cls, path: Path, config: ProjectConfig) -> Project:
        """Make the folder and write ``config.json``; a project that another process has begun
        meanwhile stays as it is, with its own settings.

        Raises:
            ValueError: the folder is not empty, or lies among the images, whose number the
                project's own pictures would add to.
            FolderInUseError: another process is at it.
            OSError: it cannot be made or written.
        """
        if path.resolve().is_relative_to(config.images):
            raise ValueError(f"the project {path} must not lie in its folder of images")
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"the project {path} is not a folder")
        path.mkdir(parents=True, exist_ok=True)
        # Hidden files are leftovers of a kill while config.json was written, or not ours to mind.
        other = foreign_file(path, "config.json")
        if other is not None:
            raise ValueError(
                f"{path} holds no project but is not empty ({other}): name a new folder"
            )
        with locked(path, "project"):
            if not (path / "config.json").exists():
                with write_atomically(path / "config.json", "w") as file:
                    json.dump(config.settings(), file, indent=2)
                    file.write("\n")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process can be at this project inside the block.

        Raises:
            FolderInUseError: one is.
        """
        with locked(self.path, "project"):
            remove_leftovers(self.path)
            yield

    def asked(self) -> list[Asked]:
        """All images asked for, query by query. ValueError if the table is damaged; so below."""
        return self._read("queries.csv", Asked)

    def given(self) -> list[Given]:
        """All answers taken, the oldest first."""
        return self._read("labels.csv", Given)

    def trainings(self) -> list[Training]:
        """All trainings, the oldest first."""
        return self._read("trainings.csv", Training)

    def answers(self) -> dict[str, str]:
        """The answer that counts of each image that has one: a class or "skip"."""
        return {row.image: row.label for row in self.given()}

    def labels(self) -> dict[str, str]:
        """The class of each image that has one."""
        return {image: label for image, label in self.answers().items() if label != SKIP}

    def write_asked(self, rows: Sequence[Asked]) -> None:
        """Replace the table of what was asked. OSError naming the file, so below."""
        self._write("queries.csv", Asked, rows)

    def write_given(self, rows: Sequence[Given]) -> None:
        """Replace the table of answers."""
        self._write("labels.csv", Given, rows)

    def write_trainings(self, rows: Sequence[Training]) -> None:
        """Replace the table of trainings."""
        self._write("trainings.csv", Training, rows)

    def weights(self, training: int) -> Path:
        """Where the network of that training lies."""
        return self.path / f"weights_{training}.pt"

    def write_table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Replace the file `name` by a CSV table of these rows, whole or not at all."""
        with write_atomically(self.path / name, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)

    def _write(self, name: str, kind: type[Row], rows: Sequence[Row]) -> None:
        table = io.StringIO(newline="")
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow([field.name for field in fields(kind)])
        writer.writerows(tuple(asdict(row).values()) for row in rows)
        write_recorded(self.path / name, table.getvalue().encode())

    def _read(self, name: str, kind: type[Row]) -> list[Row]:
        path = self.path / name
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
                kind(**{key: convert(row[key]) for key, convert in columns.items()})
                for row in reader
            ]
        except (ValueError, TypeError, csv.Error) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
