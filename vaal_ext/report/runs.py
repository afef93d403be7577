"""What a report reads from the folders that `vaal-ext run` writes."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vaal_ext.experiment import provenance
from vaal_ext.experiment.begun import with_defaults
from vaal_ext.experiment.datasets.load import DataSplit, content_key, load_dataset
from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.files.checksums import read_recorded
from vaal_ext.files.reading import parse_json
from vaal_ext.pool.scores import PoolScores
from vaal_ext.selection import accuracy_percentile
from vaal_ext.strategies import parse_strategy

__all__ = ["Run", "group_runs", "load_run", "require_same_data"]

# Settings that do not change what a run estimates: runs that differ in these alone are averaged.
_NOT_A_TREATMENT = ("seed", "rounds", "data_root", "device", "on_unreadable")

# The defaults of these have changed, and a strategy other than vaal does not read them.
_OF_THE_SEARCH = ("method", "xi", "num_iters")

# What is read of a run's configuration; the rest only tells groups apart.
_CONFIG = {
    "dataset": str,
    "data_root": str | None,
    "strategy": str,
    "seed": int,
    "rounds": int,
    "percentile": int | float | str,
    "query_size": int,
}

_ACCURACIES = ("test_accuracy", "val_accuracy")
_LOSSES = ("test_loss", "train_loss")
_SECONDS = ("train_seconds", "score_seconds", "select_seconds")

_MEND = "vaal-ext run, called as for this run, writes it again"


@functools.lru_cache(maxsize=1)
def _data(
    dataset: str, data_root: str | None, seed: int, on_unreadable: str
) -> tuple[DataSplit, str]:
    """The data set, split as that seed splits it, and its fingerprint."""
    split_seed = stream_seed(seed, Stream.SPLIT)
    data = load_dataset(dataset, data_root, split_seed, on_unreadable=on_unreadable)
    return data, provenance.fingerprint(data)


@dataclass(frozen=True)
class Run:
    """A run folder, and of its R finished rounds what rounds.csv says.

    Attributes:
        config: every setting, those of later versions at their defaults.
        data_sha256: of the data it ran on.
        labels: int64 [R].
        accuracy, val_accuracy: float64 [R] in 0..1, on the test set and on the validation set.
        test_loss, train_loss: float64 [R], in nats.
        train_seconds, query_seconds: float64 [R], what training took, and scoring and selecting
            (nothing in round 0).
        made_with: the versions of the software that began it, and its commit, by name; none where
            the folder does not tell.
    """

    folder: Path
    config: dict[str, Any]
    data_sha256: str
    labels: np.ndarray
    accuracy: np.ndarray
    val_accuracy: np.ndarray
    test_loss: np.ndarray
    train_loss: np.ndarray
    train_seconds: np.ndarray
    query_seconds: np.ndarray
    made_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether every round of the configuration is there: the start and `rounds` queries."""
        return len(self.labels) == int(self.config["rounds"]) + 1

    def queries(self, pool_size: int | None = None) -> dict[int, list[tuple[int, str]]]:
        """Every query by its round, in order, as pairs of dataset index and pseudo label ("" where
        none was computed); 0 is the initial set, which no strategy chose.

        ValueError: a bad file; an index below 0, or not below `pool_size` where that is known.
        """
        found = {}
        for path in self.folder.glob("query_*.csv"):
            rows = _read_csv(path, ("index", "pseudo_label"))
            try:
                number = int(path.stem.removeprefix("query_"))
                found[number] = [(int(row["index"]), row["pseudo_label"]) for row in rows]
            except ValueError:
                raise ValueError(f"{path} is not a query of a run") from None
            for index, _ in found[number]:
                if index < 0 or (pool_size is not None and index >= pool_size):
                    size = "" if pool_size is None else f" of {pool_size}"
                    raise ValueError(
                        f"{path} is damaged: there is no sample {index}{size}. {_MEND}"
                    )
        return dict(sorted(found.items()))

    def percentile_of_query(self, number: int, pool_size: int) -> float:
        """The threshold (PRT) of query `number` >= 1, from a pool of so many samples."""
        percentile = self.config["percentile"]
        if percentile == "accuracy":
            accuracy = float(self.val_accuracy[number - 1])
            return accuracy_percentile(accuracy, self.config["query_size"], pool_size)
        return float(percentile)

    def load_data(self) -> DataSplit:
        """The data set of the run, split as it was; the last one loaded is kept.

        Raises:
            ValueError, OSError: see :func:`.datasets.load.load_dataset`; other data than the run's.
        """
        config = self.config
        names = ("dataset", "data_root", "seed", "on_unreadable")
        data, sha256 = _data(*(config[name] for name in names))
        if sha256 != self.data_sha256:
            raise ValueError(f"the data in {config['dataset']} are not those of {self.folder}")
        return data

    def scores(self) -> PoolScores | None:
        """The scores of the pool that the last query chose from, where the strategy has LDR.

        ValueError: the file is damaged.
        """
        path = self.folder / "scores.npz"
        try:
            scores = PoolScores.load(path) if path.is_file() else None
        except ValueError as error:
            raise ValueError(f"{error}. Delete it, and the report does without") from error
        return scores if scores is not None and np.isfinite(scores.ldr).any() else None


def _read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    text = read_recorded(path, _MEND)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from None
    if missing:
        raise ValueError(f"{path} lacks the column {', '.join(missing)}")
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{path} is damaged: a line has too few or too many columns")
    return rows


def load_run(folder: Path) -> Run:
    """Read config.json and rounds.csv of a run folder. ValueError if it is none or is damaged."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a run: there is no such folder")
    for name in ("config.json", "rounds.csv"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not a run with a finished round: it has no {name}")
    path = folder / "config.json"
    text = read_recorded(path)
    try:
        content = parse_json(text)
        config, sha256 = with_defaults(content["config"]), str(content["data_sha256"])
        made_with = {name: str(version) for name, version in content.get("versions", {}).items()}
        if content.get("commit"):
            made_with["commit"] = str(content["commit"])
        wrong = [key for key, kind in _CONFIG.items() if not isinstance(config[key], kind)]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not the configuration of a run") from None
    if wrong:
        raise ValueError(f"{path} is not the configuration of a run: {wrong[0]} has the wrong type")
    path = folder / "rounds.csv"
    rows = _read_csv(path, ("labels", *_ACCURACIES, *_LOSSES, *_SECONDS))
    try:
        labels = np.array([int(row["labels"]) for row in rows], dtype=np.int64)
        accuracy, losses, seconds = (
            np.array([[float(row[name]) for row in rows] for name in names])
            for names in (_ACCURACIES, _LOSSES, _SECONDS)
        )
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not len(labels):
        raise ValueError(f"{path} holds no finished round")
    if (np.diff(labels) <= 0).any() or not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise ValueError(f"{path} is damaged: labels must grow and accuracies lie in 0..1")
    if not (np.isfinite(seconds) & (seconds >= 0)).all():
        raise ValueError(f"{path} is damaged: seconds must be finite and at least 0")
    test_accuracy, val_accuracy = accuracy
    test_loss, train_loss = losses
    return Run(
        folder=folder,
        config=config,
        data_sha256=sha256,
        labels=labels,
        accuracy=test_accuracy,
        val_accuracy=val_accuracy,
        test_loss=test_loss,
        train_loss=train_loss,
        train_seconds=seconds[0],
        query_seconds=seconds[1:].sum(0),
        made_with=made_with,
    )


def require_same_data(runs: Sequence[Run]) -> None:
    """ValueError where two runs of a data set that should have had the same data had others."""
    first: dict[tuple[str, int | None], Run] = {}
    for run in runs:
        dataset = run.config["dataset"]
        other = first.setdefault(content_key(dataset, run.config["seed"]), run)
        if other.data_sha256 != run.data_sha256:
            raise ValueError(
                f"{other.folder} and {run.folder} were made from different data, both of the name "
                f"{dataset!r}"
            )


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ only in their seed, by the name of the group: its strategy, followed by
    the settings in which other groups of that strategy differ from it.

    ValueError where the datasets or their data differ, or where two runs have the same settings and
    seed (the same numbers twice would make the band too narrow).
    """
    datasets = {run.config["dataset"]: run for run in runs}
    if len(datasets) > 1:
        first, second = list(datasets.values())[:2]
        raise ValueError(
            f"runs of different datasets: {first.folder} is {first.config['dataset']!r}, "
            f"{second.folder} is {second.config['dataset']!r}"
        )
    require_same_data(runs)
    groups: dict[str, list[Run]] = {}
    for run in runs:
        config = run.config
        treatment = [f"{k}={_text(config[k])}" for k in sorted(config) if _counts(k, config)]
        same = groups.setdefault(" ".join(treatment), [])
        for other in same:
            if other.config["seed"] == run.config["seed"]:
                raise ValueError(
                    f"{other.folder} and {run.folder} have the same settings and the same seed"
                )
        same.append(run)
    return {_name(group[0], list(groups.values())): group for group in groups.values()}


def _name(run: Run, groups: Sequence[Sequence[Run]]) -> str:
    """The strategy; with the settings in which other groups of that strategy differ from it."""
    strategy = run.config["strategy"]
    rivals = [g[0].config for g in groups if g[0].config["strategy"] == strategy]
    keys = dict.fromkeys(key for config in rivals for key in config)
    different = [
        f"{key}={run.config.get(key)}"
        for key in keys
        if _counts(key, run.config) and len({_text(c.get(key)) for c in rivals}) > 1
    ]
    return f"{strategy} ({', '.join(different)})" if different else strategy


def _counts(setting: str, config: Mapping[str, Any]) -> bool:
    """Whether a setting can change what a run of this configuration comes to."""
    query, _ = parse_strategy(config["strategy"])
    return setting not in _NOT_A_TREATMENT and (query == "vaal" or setting not in _OF_THE_SEARCH)


def _text(setting: Any) -> str:
    """The same for equal settings: 90 is 90.0."""
    number = isinstance(setting, int) and not isinstance(setting, bool)
    return json.dumps(float(setting) if number else setting)
