"""Figures 3 to 5: networks on the toy sets, trained once more to be looked at."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vaal_ext.experiment.config import RunConfig
from vaal_ext.experiment.each_round import Experiment
from vaal_ext.experiment.state import read_state
from vaal_ext.experiment.training import evaluate
from vaal_ext.paper.figures import Panel
from vaal_ext.report.runs import Run

__all__ = ["before_and_after", "error_after_updates"]

_GRID = 200  # points a side
_MARGIN = 0.3  # of the picture around the points, in their units


def _experiment(run: Run) -> Experiment:
    return Experiment(RunConfig(**run.config).resolved(), run.load_data(), bars=False)


def _indices(run: Run, number: int, pool_size: int) -> np.ndarray:
    """What round `number` queried, int64 [n], in the order queried; 0 is the initial set."""
    return np.array([index for index, _ in run.queries(pool_size)[number]], dtype=np.int64)


def before_and_after(run: Run, name: str) -> list[Panel]:
    """The networks before and after the first query of a run in the plane (Fig. 3 and 4)."""
    experiment = _experiment(run)
    x, y = experiment.data.train_x.numpy(), experiment.data.train_y.numpy()
    low, high = x.min(axis=0) - _MARGIN, x.max(axis=0) + _MARGIN
    axes = np.linspace(low, high, _GRID).T
    first, second = np.meshgrid(*axes)
    grid = torch.from_numpy(np.stack([first, second], axis=-1).reshape(-1, 2)).float()
    initial, queried = (_indices(run, number, len(x)) for number in (0, 1))
    panels = []
    for number, labelled, chosen, when in (
        (0, initial, queried, "querying instances by"),
        (1, np.concatenate([initial, queried]), queried, "after training with those of"),
    ):
        model, _ = experiment.train(number, labelled)
        model.eval()
        with torch.no_grad():
            posterior = model(grid.to(experiment.device)).double().softmax(dim=1)[:, 1]
        probability = posterior.cpu().numpy().reshape(_GRID, _GRID)
        panels.append(Panel(f"{when} {name}", probability, axes, x, y, labelled, chosen))
    return panels


def error_after_updates(run: Run) -> np.ndarray:
    """Test error (0..1) after each step of the training that follows the first query, float [T]."""
    experiment = _experiment(run)
    errors = []

    def watch(model: nn.Module, _: int) -> None:
        errors.append(1.0 - evaluate(model, *experiment.test)[0])

    state = read_state(run.folder / "state.pt")
    experiment.train(1, state.labelled, twins=state.twins, on_step=watch)
    return np.array(errors)
