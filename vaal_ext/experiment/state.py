"""The state of a run after a round: what it holds, how its file is written, read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaal_ext.files.atomic import write_tensors
from vaal_ext.files.reading import load_torch, require_finite

__all__ = ["Round", "State", "Twins", "read_state", "write_state"]


@dataclass(frozen=True)
class Round:
    """One row of ``rounds.csv``. Accuracies lie in [0, 1], losses are in nats, times in seconds.

    Round 0 trains on the initial labels. Every other round queries with the network of the round
    before, then trains a fresh one (with ``warm_start`` it trains that one further). ``labels``
    counts the labels that this round's network was trained on, without the adversarial twins, which
    cost none.
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
    """Samples ``x`` float32 [T, ...] that are trained on with the labels of other samples, whose
    places in the data set's pool are ``of``, int64 [T]."""

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


def write_state(path: Path, state: State) -> None:
    """Replace a ``state.pt``, whole or not at all. OSError naming it where it cannot be written."""
    content: dict[str, Any] = {
        "rounds": [asdict(row) for row in state.rounds],
        "labelled": torch.from_numpy(state.labelled),
        "weights": {key: value.cpu() for key, value in state.weights.items()},
    }
    if state.twins is not None:
        content["twins"] = {"x": state.twins.x, "of": state.twins.of}
    write_tensors(path, content)


def read_state(path: Path) -> State:
    """The state in a ``state.pt``, checked by its checksums and for plausibility.

    Raises:
        ValueError: it is damaged, or no run was ever in such a state.
        OSError: it cannot be read.
    """
    try:
        saved = load_torch(path)
        rounds = tuple(Round(**row) for row in saved["rounds"])
        labelled, weights = saved["labelled"], saved["weights"]
        twins = Twins(**saved["twins"]) if "twins" in saved else None
        _require_rounds(rounds)
        _require_labelled(labelled, rounds[-1].labels)
        _require_weights(weights)
        if twins is not None:
            _require_twins(twins, labelled)
        return State(rounds, labelled.numpy(), dict(weights), twins)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path} is damaged, the run cannot go on: {reason}. Put back a copy of it, or delete "
            "it, and the run begins anew"
        ) from error


def _require_rounds(rounds: tuple[Round, ...]) -> None:
    if not rounds:
        raise ValueError("it holds no round")
    labels = 0
    for number, row in enumerate(rounds):
        for name, value in asdict(row).items():
            if type(value) is not (int if name in ("round", "labels") else float):
                raise TypeError(f"{name} of round {number} is {value!r}")
        shares = row.test_accuracy, row.val_accuracy
        losses = row.test_loss, row.train_loss
        seconds = row.train_seconds, row.score_seconds, row.select_seconds
        good = (
            row.round == number
            and row.labels > labels
            and all(0 <= value <= 1 for value in shares)
            and all(map(math.isfinite, losses))
            and all(0 <= value < math.inf for value in seconds)
        )
        if not good:
            raise ValueError(f"no round {number} is like {row}")
        labels = row.labels


def _require_labelled(labelled: Any, count: int) -> None:
    _require_indices("labelled", labelled)
    if len(labelled) != count or len(labelled.unique()) != count:
        raise ValueError(
            f"labelled must be {count} different samples, got {len(labelled.unique())} among "
            f"{len(labelled)}"
        )


def _require_indices(name: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.ndim != 1:
        kind = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value)
        raise TypeError(f"{name} must be int64 [N], got {kind}")
    if len(value) and value.min() < 0:
        raise ValueError(f"{name} must not be negative, got {value.min()}")


def _require_weights(weights: Any) -> None:
    named = isinstance(weights, Mapping) and all(isinstance(key, str) for key in weights)
    if not named or not all(isinstance(value, Tensor) for value in weights.values()):
        raise TypeError("weights must be tensors by name")
    require_finite(weights.items())


def _require_twins(twins: Twins, labelled: Tensor) -> None:
    if not isinstance(twins.x, Tensor) or twins.x.dtype != torch.float32:
        raise TypeError("the twins must be float32")
    require_finite([("twins", twins.x)])
    _require_indices("the twins' originals", twins.of)
    if len(twins.of) != len(twins.x) or not torch.isin(twins.of, labelled).all():
        raise ValueError("every twin must belong to a labelled sample")
