"""A run's rounds as TensorBoard shows them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaal_ext.experiment.state import Round
from vaal_ext.pool.scores import PoolScores

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["RoundLog"]

# In the order they are written. The last one, after the histogram, says that a round is complete.
_TAGS = {
    "accuracy/validation": "val_accuracy",
    "loss/test": "test_loss",
    "loss/train": "train_loss",
    "seconds/train": "train_seconds",
    "seconds/score": "score_seconds",
    "seconds/select": "select_seconds",
    "labels": "labels",
}
_LAST_TAG = "accuracy/test"
_LEAST = 1e-12  # LDR spans many orders of magnitude, zero included: its logarithm is shown


class RoundLog:
    """Writes rounds to event files in a folder; the step is the number of the round.

    Scalars are the numbers of ``rounds.csv``; the histogram is log10 of the LDR [nats] of the pool
    that the round queried. Where a run is taken up again, the finished rounds that the log lacks
    are added first.

    Args:
        folder: it is made if need be; one for each run.
        rounds: those finished so far.
        scores: of the query of the last of them, if it had any.

    Raises:
        ImportError: tensorboard is not installed.
        ValueError: the folder holds the log of another run.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, rounds: tuple[Round, ...], scores: PoolScores | None) -> None:
        writer = _writer()
        logged = _logged(folder)
        for number, accuracy in logged.items():
            if number >= len(rounds) or accuracy != np.float32(rounds[number].test_accuracy):
                raise ValueError(f"{folder} holds the log of another run: name a new folder")
        self._writer = writer(str(folder))
        for row in rounds:
            if row.round not in logged:
                self.add(row, scores if row is rounds[-1] else None)

    def add(self, row: Round, scores: PoolScores | None) -> None:
        """Log a round, down to the disk; `scores` are those that its query used."""
        for tag, name in _TAGS.items():
            self._writer.add_scalar(tag, getattr(row, name), row.round)
        ldr = np.empty(0) if scores is None else scores.ldr[np.isfinite(scores.ldr)]
        if len(ldr):
            values = np.log10(np.maximum(ldr.astype(np.float64), _LEAST))
            self._writer.add_histogram("log10 LDR", values, row.round)
        self._writer.add_scalar(_LAST_TAG, row.test_accuracy, row.round)
        self._writer.flush()

    def close(self) -> None:
        """Ends the log; nothing can be added after."""
        self._writer.close()


def _logged(folder: Path) -> dict[int, float]:
    """The test accuracy, in float32, of the rounds that are in the log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    shown = EventAccumulator(str(folder), {"scalars": 0, "histograms": 1}).Reload()
    if _LAST_TAG not in shown.Tags()["scalars"]:
        return {}
    return {event.step: event.value for event in shown.Scalars(_LAST_TAG)}


def _writer() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            f"a TensorBoard log needs tensorboard: pip install 'vaal_ext[tensorboard]' ({error})"
        ) from error
    return SummaryWriter
