"""Which radius is a small one: how well LDR finds wrong pseudo labels, against eps over |x|."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vaal_ext.experiment.state import read_state
from vaal_ext.experiment.status import counted
from vaal_ext.experiment.training import model_for
from vaal_ext.pool.radius import rms_length
from vaal_ext.report.canvas import new_figure, set_caption, set_title, styles, write_figure
from vaal_ext.report.runs import Run
from vaal_ext.scorer import LDRScorer

__all__ = ["FRACTIONS", "draw_radius", "error_ranking"]

# Radii as fractions of the root mean square of the samples' lengths |x|.
FRACTIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 1.0)

_SAMPLES = 2000  # of the validation set, at most
_STEP = 0.1  # xi over eps


def error_ranking(run: Run) -> tuple[float, np.ndarray]:
    """How well LDR tells right from wrong pseudo labels, with the last network of a run.

    On the validation set, at the radii ``FRACTIONS`` times the first number returned.

    Returns:
        the root mean square of |x|, in units of the network's input; and float64 [len(FRACTIONS)],
        the area under the ROC curve of LDR as a detector of wrong pseudo labels (0.5: none), NaN
        where all are right or all wrong.
    """
    from sklearn.metrics import roc_auc_score

    device = run.config["device"]
    data = run.load_data()
    model = model_for(data, seed=0).to(device)
    model.load_state_dict(read_state(run.folder / "state.pt").weights)
    x, y = data.val_x[:_SAMPLES].to(device), data.val_y[:_SAMPLES].numpy()
    length = rms_length(x)
    areas = []
    for fraction in FRACTIONS:
        eps = fraction * length
        scores = LDRScorer(model, eps=eps, method="finite-difference", xi=_STEP * eps).score(
            x, progress=False
        )
        wrong = scores.pseudo_label != y
        defined = wrong.any() and not wrong.all()
        areas.append(roc_auc_score(wrong, scores.ldr) if defined else math.nan)
    return length, np.array(areas)


def draw_radius(path: Path, areas: Mapping[str, np.ndarray], title: str) -> None:
    """The mean over seeds against eps/|x|, a curve for each data set, to the PNG file `path`.

    `areas` is data set -> float [S, len(FRACTIONS)]; a seed with NaN is left out, and a data set
    without any other is named in the caption alone.
    """
    figure = new_figure(7.6, 4.2)
    axes = figure.subplots()
    defined = {name: values[np.isfinite(values).all(axis=1)] for name, values in areas.items()}
    shown = {name: values for name, values in defined.items() if len(values)}
    for (dataset, values), style in zip(shown.items(), styles(list(shown)), strict=True):
        axes.plot(
            FRACTIONS, values.mean(axis=0), color=style.colour, marker=style.marker,
            label=f"{dataset} ({counted(len(values), 'seed')})",
        )  # fmt: skip
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":", label="finds nothing")
    axes.set_xscale("log")
    axes.set_xlabel("radius eps over the root mean square of |x|")
    axes.set_ylabel("area under the ROC curve:\nLDR finds wrong pseudo labels")
    set_title(figure, title)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right center", frameon=False)
    missing = [name for name in areas if name not in shown]
    why = "in no seed are there both right and wrong pseudo labels"
    set_caption(figure, f"Not shown: {', '.join(missing)} ({why})." if missing else "")
    write_figure(figure, path)
