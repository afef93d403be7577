"""Runs and run folders with accuracies of a test's choice."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

from vaal_ext.experiment import provenance
from vaal_ext.experiment.datasets.load import load_dataset
from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.pool.scores import PoolScores
from vaal_ext.report.runs import Run

CONFIG = {
    "dataset": "digits",
    "data_root": None,
    "rounds": 2,
    "query_size": 10,
    "percentile": 90.0,
    "eps": 0.1,
}


def make_run(
    folder: Path,
    accuracy: list[float],
    *,
    strategy: str = "random",
    seed: int = 0,
    guesses: bool = False,
    **settings: object,
) -> Path:
    """A run folder as `vaal-ext run` leaves it: 20 labels, then queries of 10, each in 3 s."""
    folder.mkdir(parents=True)
    config = CONFIG | {"strategy": strategy, "seed": seed} | settings
    try:
        sha256 = sha256_of(str(config["dataset"]), seed)
    except (OSError, ImportError):  # the data are not there
        sha256 = ""
    content = {"config": config, "data_sha256": sha256}
    (folder / "config.json").write_text(json.dumps(content))
    header = (
        "round,labels,test_accuracy,test_loss,val_accuracy,train_loss,"
        "train_seconds,score_seconds,select_seconds"
    )
    rows = [
        f"{i},{20 + 10 * i},{value},{1 - value},{value},0.1,1,{2 * (i > 0)},{i > 0:d}"
        for i, value in enumerate(accuracy)
    ]
    (folder / "rounds.csv").write_text("\n".join([header, *rows]) + "\n")
    for i in range(len(accuracy)):
        guess = "3" if guesses and i else ""
        lines = [f"{20 * i + j},{guess}" for j in range(20 if i == 0 else 10)]
        (folder / f"query_{i:03d}.csv").write_text("\n".join(["index,pseudo_label", *lines]))
    return folder


def add_scores(folder: Path, index: np.ndarray) -> None:
    """The scores of the last query's pool; some LDR is 0, NaN or nearly 0."""
    n = len(index)
    ldr = np.exp(np.linspace(-12, 1, n)).astype(np.float32)
    ldr[:3] = [0.0, np.nan, 1e-30]
    PoolScores(
        index=index.astype(np.int64),
        ldr=ldr,
        pseudo_label=np.arange(n) % 10,
        entropy=np.ones(n, np.float32),
        margin=np.ones(n, np.float32),
        posterior_mean=np.full(10, 0.1),
    ).save(folder / "scores.npz")


@functools.cache
def sha256_of(dataset: str, seed: int) -> str:
    """Of the data that a run folder names."""
    return provenance.fingerprint(load_dataset(dataset, None, stream_seed(seed, Stream.SPLIT)))


def run_of(
    accuracy: list[float],
    labels: list[int],
    *,
    seed: int = 0,
    seconds: list[float] | None = None,
    **settings: object,
) -> Run:
    """A run that no folder holds; it is as good on the validation set as on the test set."""
    config = CONFIG | {"strategy": "random", "seed": seed} | settings
    seconds = [0.0] * len(labels) if seconds is None else seconds
    values = np.array(accuracy)
    loss = 1 - values
    return Run(
        folder=Path(f"run{seed}"),
        config=config,
        data_sha256="",
        labels=np.array(labels),
        accuracy=values,
        val_accuracy=values,
        test_loss=loss,
        train_loss=loss,
        train_seconds=np.zeros(len(labels)),
        query_seconds=np.array(seconds),
    )
