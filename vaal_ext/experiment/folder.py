"""The folder of a run: what lies in it, how a round is committed, how a run is taken up again.

``config.json``    "config": every setting of the run; "data_sha256", "versions" and "commit"
``query_003.csv``  the samples that round 3 queried (round 0: the initial set), in the order picked;
                   "index" counts the pool (without what a data set of one part holds out)
``scores.npz``     :class:`~vaal_ext.pool.scores.PoolScores` of the pool of the last query
``state.pt``       the labels so far, the rounds so far and the network's weights (a state dict);
                   with ``dfal`` the adversarial twins so far
``rounds.csv``     one row for every finished round
``.lock``          held by the process that is at the run

Every file is replaced by an atomic rename. The rename of ``state.pt`` commits a round: what was
written before it is written again, the same, if the run is killed in between, and ``rounds.csv``,
written after it, is rebuilt from it.
"""

from __future__ import annotations

import csv
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaal_ext.atomic import remove_leftovers, write_atomically
from vaal_ext.experiment import provenance
from vaal_ext.experiment.config import config_differences
from vaal_ext.locked import foreign_file, locked
from vaal_ext.pool.scores import PoolScores, score_text
from vaal_ext.selection import percentile_rank

__all__ = ["Round", "RunFolder", "State", "Twins", "read_state"]

_SCORE_COLUMNS = ("pseudo_label", "ldr", "percentile_rank", "entropy", "margin")


@dataclass(frozen=True)
class Round:
    """One row of ``rounds.csv``. Accuracies lie in [0, 1], losses are in nats, times in seconds.

    Round 0 trains on the initial labels. Every other round queries with the network of the round
    before, then trains a fresh one (with ``warm_start`` that one further): ``labels`` counts what
    the network of this round was given, not the adversarial twins, which cost no label.
    """

    round: int
    labels: int
    test_accuracy: float
    test_loss: float
    val_accuracy: float
    train_loss: float
    train_seconds: float
    score_seconds: float
    select_seconds: float


@dataclass(frozen=True)
class Twins:
    """Samples ``x`` float32 [T, ...] that are trained on with the labels of others: those at ``of``
    int64 [T] in the data set's pool."""

    x: Tensor
    of: Tensor


@dataclass(frozen=True)
class State:
    """What a run needs to go on: its finished rounds, the labelled indices and the last weights.

    ``labelled`` is int64 [labels], indices in the data set's pool in the order they were labelled;
    ``twins`` is None where the strategy makes none.
    """

    rounds: tuple[Round, ...]
    labelled: np.ndarray
    weights: dict[str, Tensor]
    twins: Twins | None = None


class RunFolder:
    """A run's folder, which this process alone is at; see the module's text for the files."""

    def __init__(self, path: Path) -> None:
        """Whoever makes one holds the folder's lock, as :meth:`of` does."""
        self.path = path

    @classmethod
    @contextmanager
    def of(cls, path: Path, config: Mapping[str, Any], data_sha256: str) -> Iterator[RunFolder]:
        """The folder of this very run, new or taken up again, and no other process at it inside
        the block; a killed process lets go.

        Raises:
            FolderInUseError: another process is at it.
            ValueError: the folder belongs to a different run (says in what), or to none.
            OSError: it cannot be made or written.
        """
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"the output folder {path} is not a folder")
        path.mkdir(parents=True, exist_ok=True)
        other = foreign_file(path, "config.json")
        if other is not None:
            raise ValueError(
                f"the output folder {path} holds no run but is not empty ({other}): "
                "name a new folder"
            )
        with locked(path, "run"):
            folder = cls(path)
            folder._begin({"config": dict(config), "data_sha256": data_sha256})
            yield folder

    def _begin(self, identity: Mapping[str, Any]) -> None:
        """Write what this run is, or check that it is what the folder holds."""
        remove_leftovers(self.path)
        if (self.path / "config.json").exists():
            self._compare(identity)
            return
        about = {"versions": provenance.versions(), "commit": provenance.commit()}
        with write_atomically(self.path / "config.json", "w") as file:
            json.dump({**identity, **about}, file, indent=2)
            file.write("\n")

    def load_state(self) -> State | None:
        """The last committed state, or None before the first; brings ``rounds.csv`` up to it.

        Raises:
            ValueError: ``state.pt`` is damaged.
        """
        path = self.path / "state.pt"
        if not path.exists():
            return None
        state = read_state(path)
        self._write_rounds(state.rounds)
        return state

    def load_scores(self) -> PoolScores | None:
        """The scores of the last query that had any. ValueError if the file is damaged."""
        path = self.path / "scores.npz"
        return PoolScores.load(path) if path.exists() else None

    def commit(self, state: State, scores: PoolScores | None) -> None:
        """Write all files of the last round in ``state``; ``scores`` are those its query used."""
        if scores is not None:
            scores.save(self.path / "scores.npz")
        self._write_query(state, scores)
        content: dict[str, Any] = {
            "rounds": [asdict(row) for row in state.rounds],
            "labelled": torch.from_numpy(state.labelled),
            "weights": {key: value.cpu() for key, value in state.weights.items()},
        }
        if state.twins is not None:
            content["twins"] = {"x": state.twins.x, "of": state.twins.of}
        with write_atomically(self.path / "state.pt") as file:
            torch.save(content, file)
        self._write_rounds(state.rounds)

    def _compare(self, identity: Mapping[str, Any]) -> None:
        path = self.path / "config.json"
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            old, versions = dict(before["config"]), dict(before["versions"])
            old_data = before["data_sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not the configuration of a run: {error}") from error
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
        with write_atomically(self.path / "rounds.csv", "w") as file:
            writer = csv.DictWriter(
                file, [field.name for field in fields(Round)], lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(asdict(row) for row in rounds)

    def _write_query(self, state: State, scores: PoolScores | None) -> None:
        number = len(state.rounds) - 1
        before = state.rounds[-2].labels if number else 0
        queried = state.labelled[before:]
        columns = _score_columns(queried, scores)
        with write_atomically(self.path / f"query_{number:03d}.csv", "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("index", *columns))
            writer.writerows(zip(queried.tolist(), *columns.values(), strict=True))


def read_state(path: Path) -> State:
    """The state in a ``state.pt``. ValueError if it is damaged, OSError if it cannot be read."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        rounds = tuple(Round(**row) for row in saved["rounds"])
        twins = Twins(**saved["twins"]) if "twins" in saved else None
        return State(rounds, saved["labelled"].numpy(), dict(saved["weights"]), twins)
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError,
        AttributeError,
    ) as error:  # fmt: skip
        raise ValueError(f"{path} is damaged, the run cannot go on: {error}") from error


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
