"""The folder of a project: what lies in it, and in which order it is written.

``config.json``    the settings; may be edited between two commands
``queries.csv``    every image that was ever asked for, with the scores it was asked for by
``labels.csv``     every answer that was ever taken; of an image's answers the last one counts
``trainings.csv``  one row for every training
``weights_N.pt``   the state dict of the network of training N; none is ever deleted
``network.py``     a factory for that network: ``vaal-ext score --model network:network``
``query_N.*``      query N for those who label, see :mod:`vaal_ext.labelling.handout`
``report.html``    how far the project is, for people to look at; see :mod:`vaal_ext.labelling.page`
``not_taken.csv``  the answers that ``vaal-ext label`` last refused, to be mended and given again
``.config.json``   the settings as the last command read them: by it the next one tells an edit
``.checksums.json`` the SHA-256 of the three tables and of ``.config.json``, see
                   :mod:`vaal_ext.files.checksums`
``.lock``          held by the process that is at the project

Every file is replaced by an atomic rename. The three tables are the state: the rename of one
commits a step, and what else the step writes is written before it, or made again from it.
"""

from __future__ import annotations

import csv
import json
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from vaal_ext.files.atomic import remove_leftovers, write_atomically, write_tensors
from vaal_ext.files.checksums import read_recorded, write_recorded
from vaal_ext.files.claim import locked, make_own
from vaal_ext.files.reading import load_torch, parse_json
from vaal_ext.labelling.config import SKIP, ProjectConfig
from vaal_ext.labelling.tables import Asked, Given, Training, read_rows, write_rows

__all__ = ["Project"]


class Project:
    """A project that has begun. Its tables are read when asked for.

    Raises:
        ValueError: the folder holds no project, or its ``config.json`` is no good.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: dict[int, bool] = {}  # of trainings, whether their weights are
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
        make_own(path, "project", "config.json")
        with locked(path, "project"):
            if not (path / "config.json").exists():
                _write_config(path, config)
        return cls(path)

    def with_config(self, config: ProjectConfig) -> Project:
        """The project with other settings, where nothing was asked or answered yet.

        Raises:
            FolderInUseError: another process is at it. OSError: it cannot be written.
        """
        with locked(self.path, "project"):
            (self.path / ".config.json").unlink(missing_ok=True)  # no edit of which to tell
            _write_config(self.path, config)
        return Project(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process can be at this project inside the block.

        A RuntimeWarning tells which settings are not those that the block before had: they may be
        edited, and that is how a damaged ``config.json`` shows too.

        Raises:
            FolderInUseError: one is.
            ValueError: ``.config.json`` or the record of checksums is damaged.
        """
        with locked(self.path, "project"):
            remove_leftovers(self.path)
            self._tell_of_edits()
            yield

    def asked(self) -> list[Asked]:
        """All images asked for, query by query. ValueError if the table is damaged; so below."""
        return read_rows(self.path / "queries.csv", Asked)

    def given(self) -> list[Given]:
        """All answers taken, the oldest first."""
        return read_rows(self.path / "labels.csv", Given)

    def trainings(self) -> list[Training]:
        """All trainings, the oldest first."""
        return read_rows(self.path / "trainings.csv", Training)

    def answers(self) -> dict[str, str]:
        """The answer that counts of each image that has one: a class or "skip"."""
        return {row.image: row.label for row in self.given()}

    def labels(self) -> dict[str, str]:
        """The class of each image that has one."""
        return {image: label for image, label in self.answers().items() if label != SKIP}

    def write_asked(self, rows: Sequence[Asked]) -> None:
        """Replace the table of what was asked. OSError naming the file, so below."""
        write_rows(self.path / "queries.csv", Asked, rows)

    def write_given(self, rows: Sequence[Given]) -> None:
        """Replace the table of answers."""
        write_rows(self.path / "labels.csv", Given, rows)

    def write_trainings(self, rows: Sequence[Training]) -> None:
        """Replace the table of trainings."""
        write_rows(self.path / "trainings.csv", Training, rows)

    def weights(self, training: int) -> Path:
        """Where the network of that training lies."""
        return self.path / f"weights_{training}.pt"

    def write_weights(self, training: int, state: Mapping[str, Tensor]) -> None:
        """Replace the network of that training by a state dict, tensors of any shape and dtype.
        OSError naming the file."""
        write_tensors(self.weights(training), dict(state))
        self._whole[training] = True

    def has_whole_weights(self, training: int) -> bool:
        """Whether the network of that training is there and undamaged; a RuntimeWarning tells of
        damage. The file is read for it once, however often this is asked."""
        if training not in self._whole:
            weights = self.weights(training)
            try:
                load_torch(weights)
                self._whole[training] = True
            except FileNotFoundError:
                self._whole[training] = False
            except ValueError as error:
                self._whole[training] = False
                warnings.warn(
                    f"{weights} is damaged, {error}: vaal-ext train makes it again",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return self._whole[training]

    def write_table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Replace the file `name` by a CSV table of these rows, whole or not at all."""
        with write_atomically(self.path / name, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)

    def _tell_of_edits(self) -> None:
        kept, settings = self.path / ".config.json", self.config.settings()
        if kept.exists():
            text = read_recorded(kept, "delete it, and config.json counts as it is")
            before = _settings(kept, text)
            changed = [
                f"{name} was {before[name]!r} and is {value!r}"
                for name, value in settings.items()
                if name in before and value != before[name]  # a later version has more of them
            ]
            if changed:
                warnings.warn(
                    f"{self.path / 'config.json'} was edited or damaged since the last command: "
                    f"{', '.join(changed)}",
                    RuntimeWarning,
                    stacklevel=4,
                )
        write_recorded(kept, f"{json.dumps(settings, indent=2)}\n".encode())


def _write_config(path: Path, config: ProjectConfig) -> None:
    with write_atomically(path / "config.json", "w") as file:
        json.dump(config.settings(), file, indent=2)
        file.write("\n")


def _settings(path: Path, text: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
        if not isinstance(found, dict):
            raise TypeError("it holds no settings")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged, {error}: delete it") from None
    return found
