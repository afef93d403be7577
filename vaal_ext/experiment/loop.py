"""A run of active learning: round by round, to a folder on disk, and on from there after a kill."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from vaal_ext.backend import load_backend
from vaal_ext.experiment import provenance
from vaal_ext.experiment.begun import as_begun
from vaal_ext.experiment.config import ResolvedConfig, RunConfig, with_lengths
from vaal_ext.experiment.datasets.load import DataSplit, load_dataset
from vaal_ext.experiment.each_round import Experiment
from vaal_ext.experiment.folder import RunFolder, begun_with
from vaal_ext.experiment.resume import taken_up
from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.experiment.state import State
from vaal_ext.experiment.status import (
    beginning,
    now,
    queries,
    round_line,
    say,
    standing_bar,
    time_left,
)
from vaal_ext.experiment.tensorboard import RoundLog

__all__ = ["RunConfig", "check_fits", "run"]


def run(
    config: RunConfig,
    out: str | Path,
    *,
    progress: bool = True,
    tensorboard: str | Path | None = None,
) -> None:
    """Run active learning to the end, or take it up where it was killed.

    All files are described in :mod:`vaal_ext.experiment.folder`. A run that was killed, at any
    instant, goes on from its last finished round when this is called again with the same arguments,
    and ends bit for bit (apart from the seconds) where an undisturbed run ends; that holds on one
    machine, device and number of torch threads.

    Args:
        config: what to run.
        out: the run's own folder; it is made if need be.
        progress: whether to print what is done at the start and after every round, with the time
            left where it is known, and to show bars.
        tensorboard: a folder for what TensorBoard shows of the rounds, see
            :class:`~vaal_ext.experiment.tensorboard.RoundLog`; None writes none.

    Raises:
        TypeError, ValueError: a bad setting, data that do not suffice, or a folder that belongs to
            a different run, or that another process is at; before any work is done.
        ImportError: a TensorBoard log is asked for, and tensorboard is not installed.
        OSError: a file cannot be read or written; the folder keeps its finished rounds.
    """
    begun = (Path(out) / "config.json").exists()
    if begun:
        with suppress(ValueError):  # damaged: the folder mends or refuses it when it is opened
            config = as_begun(config, begun_with(Path(out)))
    settings = config.resolved().settings  # which refuses bad ones before any data are read
    if not begun:
        config.refuse_unread()
    load_backend(settings.backend)
    data = load_dataset(
        settings.dataset,
        settings.data_root,
        stream_seed(settings.seed, Stream.SPLIT),
        progress=progress,
        on_unreadable=settings.on_unreadable,
    )
    measured = with_lengths(config, data)
    resolved = measured.resolved()
    check_fits(resolved, data)
    sha256 = provenance.fingerprint(data)
    experiment = Experiment(resolved, data, bars=progress)
    rounds = resolved.budget.rounds
    with (
        RunFolder.of(Path(out), asdict(resolved.settings), sha256) as folder,
        _deterministic_cudnn(),
    ):
        state = taken_up(folder, experiment)
        finished = () if state is None else state.rounds
        seconds = [row.train_seconds + row.score_seconds + row.select_seconds for row in finished]
        left = time_left(seconds, rounds)
        if progress:
            what = beginning(resolved, len(finished), left)
            if measured.eps != config.eps:
                what += f", eps {measured.eps:g} (a fiftieth of the samples' length)"
            say(f"{out}: {what}")
        log = nullcontext() if tensorboard is None else _round_log(tensorboard, folder, state)
        total, done = rounds + 1, len(finished)
        with (
            log as rounds_logged,
            standing_bar(now(done, left, rounds), total=total, done=done, show=progress) as bar,
        ):
            while state is None or len(state.rounds) <= rounds:
                started = time.perf_counter()
                state, scores = experiment.next_round(state)
                folder.commit(state, scores)
                if rounds_logged is not None:
                    rounds_logged.add(state.rounds[-1], scores)
                seconds.append(time.perf_counter() - started)
                left = time_left(seconds, rounds)
                bar.update()
                bar.set_description_str(now(len(state.rounds), left, rounds))
                if progress:
                    say(round_line(state.rounds[-1], rounds, left))


def _round_log(
    tensorboard: str | Path, folder: RunFolder, state: State | None
) -> closing[RoundLog]:
    if state is None:
        return closing(RoundLog(Path(tensorboard), (), None))
    rounds = state.rounds
    scores = folder.load_scores() if len(rounds) > 1 else None
    if scores is not None:
        # A kill may have left the scores of a next query that was not committed. They are of
        # another pool than the last query's, without the samples that it took.
        queried = state.labelled[rounds[-2].labels :]
        scores = scores if np.isin(queried, scores.index).all() else None
    return closing(RoundLog(Path(tensorboard), rounds, scores))


def check_fits(config: ResolvedConfig, data: DataSplit) -> None:
    """ValueError unless the data suffice for the budget of a resolved run, and fit its prior."""
    pool, budget = len(data.train_y), config.budget
    total, prior = budget.labels(budget.rounds), config.settings.class_prior
    if total > pool:
        raise ValueError(
            f"{budget.initial} initial labels and {queries(budget.rounds)} of {budget.query_size} "
            f"are {total} labels; the pool of {config.settings.dataset} has {pool} samples"
        )
    if isinstance(prior, list) and len(prior) != data.num_classes:
        raise ValueError(
            f"class_prior must have one weight for each of the {data.num_classes} classes, got "
            f"{len(prior)}"
        )


@contextmanager
def _deterministic_cudnn() -> Iterator[None]:
    """cuDNN takes algorithms that give the same bits every time, and the same ones every time."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
