"""A run taken up again: from its state, or, where that file is damaged, from the other files."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from vaal_ext.experiment.each_round import Experiment
from vaal_ext.experiment.folder import RunFolder
from vaal_ext.experiment.state import Round, State

__all__ = ["taken_up"]


def taken_up(folder: RunFolder, experiment: Experiment) -> State | None:
    """The state that the folder holds; None before the first round. Warns of what is damaged.

    Where ``state.pt`` is damaged it is made again: the tables say what was labelled, and the
    training of the last round is done once more, which the warning says before it begins.

    Raises:
        ValueError: it is damaged and cannot be made again, or is no state of this run.
        OSError: a file cannot be read or written.
    """
    path = folder.path / "state.pt"
    try:
        state = folder.load_state()
    except ValueError as damage:
        try:
            rounds, labelled = folder.load_tables()
            _require_labels_suffice(experiment)
            warnings.warn(
                f"{path} is damaged: it is made again, by the training of round "
                f"{rounds[-1].round} done once more",
                RuntimeWarning,
                stacklevel=3,
            )
            state = _retrained(experiment, rounds, labelled)
        except (ValueError, OSError, LookupError):
            raise damage from None
        folder.write_state(state)
    if state is not None:
        _require_own(state, experiment, path)
        folder.mend_tables(state)
    return state


def _require_labels_suffice(experiment: Experiment) -> None:
    """ValueError where the last network cannot be trained again from the labels alone."""
    if experiment.config.training.warm_start or experiment.config.settings.twins:
        raise ValueError("the network of the round before, or the twins, are lost")


def _retrained(experiment: Experiment, rounds: tuple[Round, ...], labelled: np.ndarray) -> State:
    """The state after these rounds, made by training once more on `labelled`, int64 [labels].

    ValueError where the training ends in other numbers than the last of `rounds`: then the labels
    or the network are not those of the run.
    """
    before = State(rounds[:-1], labelled, {}) if len(rounds) > 1 else None
    made = experiment.learn(before, labelled, None, 0.0, 0.0)
    if _measured(made.rounds[-1]) != _measured(rounds[-1]):
        raise ValueError("the training ends in other numbers")
    return replace(made, rounds=rounds)


def _measured(row: Round) -> Round:
    return replace(row, train_seconds=0.0, score_seconds=0.0, select_seconds=0.0)


def _require_own(state: State, experiment: Experiment, path: Path) -> None:
    """ValueError unless the state is one of this run with these data."""
    budget, size = experiment.config.budget, len(experiment.data.train_y)
    labels = [row.labels for row in state.rounds]
    planned = [budget.labels(number) for number in range(budget.rounds + 1)]
    if labels != planned[: len(labels)] or state.labelled.max() >= size:
        raise ValueError(
            f"{path} is no state of this run: {labels[-1]} labels after {len(labels)} rounds, up "
            f"to sample {state.labelled.max()} of {size}. Put back a copy of it, or delete it, and "
            "the run begins anew"
        )
    try:
        experiment.model(0).load_state_dict(state.weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path} is no state of this run: {error}. Put back a copy of it, or delete it, and "
            "the run begins anew"
        ) from error
