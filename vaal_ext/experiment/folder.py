"""The folder of a run: its files, and in what order they are written and mended.

``config.json``    "config": every setting of the run; "data_sha256", "versions" and "commit"
``query_003.csv``  the samples that round 3 queried (round 0: the initial set), in the order picked;
                   "index" is the sample's position in the data set's pool, which has no sample
                   that is held out for validation or test
``scores.npz``     :class:`~vaal_ext.pool.scores.PoolScores` of the pool of the last query
``state.pt``       the labels so far, the rounds so far and the network's weights (a state dict);
                   with ``dfal`` the adversarial twins so far
``rounds.csv``     one row for every finished round
``.checksums.json``  the SHA-256 of the other files, see :mod:`vaal_ext.files.checksums`;
                   ``scores.npz`` and ``state.pt`` bring checksums of their own
``.lock``          locked by the process that works at the run

Every file is replaced by an atomic rename, and the rename of ``state.pt`` commits a round. The
scores and the query are written before it: if the run is killed in between, the round is done once
more and writes the same files. ``rounds.csv`` is written after it, and rebuilt from it when the run
is taken up. A damaged query is rebuilt from it too, but ``state.pt`` knows only which samples were
queried: the scores in the table are lost, unless they are of the last query, whose are in
``scores.npz``.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from vaal_ext.experiment import provenance
from vaal_ext.experiment.begun import config_differences
from vaal_ext.experiment.state import Round, State, read_state, write_state
from vaal_ext.files.atomic import remove_leftovers
from vaal_ext.files.checksums import is_edited, read_recorded, recorded, write_recorded
from vaal_ext.files.claim import locked, make_own
from vaal_ext.files.reading import parse_json
from vaal_ext.pool.scores import PoolScores, score_text
from vaal_ext.selection import percentile_rank

__all__ = ["RunFolder", "begun_with"]

_SCORE_COLUMNS = ("pseudo_label", "ldr", "percentile_rank", "entropy", "margin")


def begun_with(path: Path) -> dict[str, Any]:
    """The settings that the run in the folder `path` was begun with.

    Raises:
        ValueError: ``config.json`` is damaged. OSError: it cannot be read.
    """
    return _settings(path / "config.json")[0]


class RunFolder:
    """A run's folder, which this process alone is at; see the module's text for the files."""

    def __init__(self, path: Path) -> None:
        """Only a process that holds the folder's lock may make one; :meth:`of` takes the lock."""
        self.path = path

    @classmethod
    @contextmanager
    def of(cls, path: Path, config: Mapping[str, Any], data_sha256: str) -> Iterator[RunFolder]:
        """The folder of a run, new or begun before, locked for this process while the block runs.

        Raises:
            FolderInUseError: another process has locked it.
            ValueError: the folder belongs to a different run (says in what), or to none.
            OSError: it cannot be made or written.
        """
        make_own(path, "run", "config.json")
        with locked(path, "run"):
            folder = cls(path)
            folder._begin({"config": dict(config), "data_sha256": data_sha256})
            yield folder

    def _begin(self, identity: Mapping[str, Any]) -> None:
        """Write ``config.json``, or check that the one in the folder is of the same run."""
        remove_leftovers(self.path)
        path = self.path / "config.json"
        about = {"versions": provenance.versions(), "commit": provenance.commit()}
        content = (json.dumps({**identity, **about}, indent=2) + "\n").encode()
        if path.exists() and not recorded(path, content):
            self._compare(identity)
            return
        if path.exists() and path.read_bytes() != content:
            _warn_of_mended(path, "it is written again")
        write_recorded(path, content)

    def load_state(self) -> State | None:
        """The last committed state, or None before the first.

        Raises:
            ValueError: ``state.pt`` is damaged.
        """
        path = self.path / "state.pt"
        return read_state(path) if path.exists() else None

    def mend_tables(self, state: State) -> None:
        """Write again from the state what is missing of the tables or does not fit it, with a
        warning where one was damaged."""
        self._write_rounds(state.rounds)
        for number in range(len(state.rounds)):
            self._mend_query(state, number)

    def load_tables(self) -> tuple[tuple[Round, ...], np.ndarray]:
        """The finished rounds, and the labelled samples int64 [labels], without ``state.pt``.

        Raises:
            ValueError, OSError: a table is damaged, or not there.
        """
        kinds: dict[str, Any] = {
            field.name: int if field.type == "int" else float for field in fields(Round)
        }
        rounds = tuple(
            Round(**{name: kind(row[name]) for name, kind in kinds.items()})
            for row in self._read("rounds.csv")
        )
        queries = [self._read_query(number) for number in range(len(rounds))]
        return rounds, np.array([index for query in queries for index in query], dtype=np.int64)

    def load_scores(self) -> PoolScores | None:
        """The scores of the last query that had any. ValueError if the file is damaged."""
        path = self.path / "scores.npz"
        try:
            return PoolScores.load(path) if path.exists() else None
        except ValueError as error:
            raise ValueError(f"{error}. Delete it, and the run does without") from error

    def commit(self, state: State, scores: PoolScores | None) -> None:
        """Write all files of the last round in ``state``; ``scores`` are those its query used."""
        if scores is not None:
            scores.save(self.path / "scores.npz")
        self._write_query(state, len(state.rounds) - 1, scores)
        self.write_state(state)

    def write_state(self, state: State) -> None:
        """Write ``state.pt``, and ``rounds.csv`` after it."""
        write_state(self.path / "state.pt", state)
        self._write_rounds(state.rounds)

    def _compare(self, identity: Mapping[str, Any]) -> None:
        old, versions, old_data = _settings(self.path / "config.json")
        new = json.loads(json.dumps(identity["config"]))
        differences = config_differences(old, new)
        if not differences and old_data != identity["data_sha256"]:
            differences = ["the data it was made from are not the data here"]
        if differences:
            raise ValueError(
                f"the output folder {self.path} holds a different run: {'; '.join(differences)}"
            )
        if versions != provenance.versions():
            warnings.warn(
                f"{self.path} was begun with {versions} and goes on with {provenance.versions()}: "
                "the result may differ from an undisturbed run's",
                RuntimeWarning,
                stacklevel=7,
            )

    def _write_rounds(self, rounds: tuple[Round, ...]) -> None:
        header = [field.name for field in fields(Round)]
        rows = [tuple(asdict(row).values()) for row in rounds]
        path, content = self.path / "rounds.csv", _table([header, *rows])
        if is_edited(path):
            _warn_of_mended(path, "it is written again from state.pt")
        write_recorded(path, content)

    def _write_query(self, state: State, number: int, scores: PoolScores | None) -> None:
        queried = _queried(state, number)
        columns = _score_columns(queried, scores)
        rows = zip(queried.tolist(), *columns.values(), strict=True)
        content = _table([("index", *columns), *rows])
        write_recorded(self.path / _query_file(number), content)

    def _mend_query(self, state: State, number: int) -> None:
        """Write a query's table again if it does not have the samples that the state names; with
        their scores if ``scores.npz`` has them."""
        queried = _queried(state, number)
        try:
            if self._read_query(number) == queried.tolist():
                return
        except (OSError, ValueError):
            pass
        scores = None
        if number == len(state.rounds) - 1:
            with suppress(ValueError):
                scores = self.load_scores()
        if scores is not None and not np.isin(queried, scores.index).all():
            scores = None  # those of the next query, which a kill kept from being committed
        self._write_query(state, number, scores)
        without = "" if scores is not None else ", without scores"
        _warn_of_mended(
            self.path / _query_file(number), f"it is written again from state.pt{without}"
        )

    def _read_query(self, number: int) -> list[int]:
        return [int(row["index"]) for row in self._read(_query_file(number))]

    def _read(self, name: str) -> list[dict[str, str]]:
        """The rows of a table. ValueError if it is damaged, OSError if it is not there."""
        path = self.path / name
        text = read_recorded(path)
        try:
            rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        except csv.Error as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        if not rows or any(None in row or None in row.values() for row in rows):
            raise ValueError(f"{path} is damaged: it lacks rows or columns")
        return rows


def _warn_of_mended(path: Path, how: str) -> None:
    warnings.warn(f"{path} was damaged or missing: {how}", RuntimeWarning, stacklevel=2)


def _query_file(number: int) -> str:
    return f"query_{number:03d}.csv"


def _queried(state: State, number: int) -> np.ndarray:
    """What that round queried, int64 [n]; of round 0 the initial set."""
    before = state.rounds[number - 1].labels if number else 0
    return state.labelled[before : state.rounds[number].labels]


def _table(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _score_columns(queried: np.ndarray, scores: PoolScores | None) -> dict[str, list[str]]:
    """The cells of ``_SCORE_COLUMNS`` for the queried samples; blank where nothing was scored.

    With ``dfal`` a column more, perturbation_norm.
    """
    if scores is None:
        return {name: [""] * len(queried) for name in _SCORE_COLUMNS}
    order = np.argsort(scores.index)
    row = order[np.searchsorted(scores.index, queried, sorter=order)]
    numbers = {
        "ldr": scores.ldr,
        "percentile_rank": percentile_rank(scores.ldr),
        "entropy": scores.entropy,
        "margin": scores.margin,
    }
    if scores.perturbation_norm is not None:
        numbers["perturbation_norm"] = scores.perturbation_norm
    return {
        "pseudo_label": [str(label) for label in scores.pseudo_label[row]],
        **{name: [score_text(value) for value in column[row]] for name, column in numbers.items()},
    }


def _settings(path: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Of a ``config.json``: the settings, the versions, and the fingerprint of the data."""
    text = read_recorded(path)
    try:
        content = parse_json(text)
        return dict(content["config"]), dict(content["versions"]), content["data_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the configuration of a run: {error}") from error
