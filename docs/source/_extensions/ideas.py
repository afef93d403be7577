"""The computed pictures of How it works, drawn by the package whenever the pages are built.

They go to `_static/ideas`. The small networks that are trained for them take a few seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from torch import Tensor, nn

import vaal_ext
from vaal_ext.experiment.datasets.load import load_dataset
from vaal_ext.experiment.training import train
from vaal_ext.models import network_for

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
PERCENTILE, QUERY = 90.0, 20


def _figure(panels: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels)


def _trained(x: Tensor, y: Tensor, classes: int, steps: int) -> nn.Module:
    model = network_for(tuple(x.shape[1:]), classes, seed=0)
    train(model, x, y, steps=steps, learning_rate=1e-3, batch_size=32, seed=0)
    return model.eval()


def _three_blobs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    centres = torch.tensor([[-1.0, -0.6], [1.0, -0.6], [0.0, 1.1]])
    return centres[y] + 0.35 * torch.randn(300, 2, generator=generator), y


def worst_direction(path: Path) -> None:
    """Left the posterior in the plane, the sample and all r of one length; right J along these, and
    where the direct search and the power iteration come out."""
    eps, x = 0.35, torch.tensor([[-0.3, 0.0]])
    model = _trained(*_three_blobs(), classes=3, steps=150)
    angle = torch.linspace(0, 2 * torch.pi, 361)
    ring = eps * torch.stack([angle.cos(), angle.sin()], dim=1)
    with torch.no_grad():
        clean = model(x).expand(len(ring), -1).contiguous()
        around = vaal_ext.ops.symmetric_kl(clean, model(x + ring))
    figure, (plane, curve) = _figure(2)
    axis = torch.linspace(-1.9, 1.9, 200)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        largest = model(grid).softmax(1).amax(1).reshape(200, 200)
    shade = plane.contourf(axis, axis, largest, levels=12, cmap="Greys_r", alpha=0.7)
    figure.colorbar(shade, ax=plane, label="largest posterior")
    plane.plot(*(x + ring).T, color="black", lw=1, label="all r of length ε")
    plane.plot(*x[0], "o", color="black", ms=4)
    curve.plot(angle, around, color="black", lw=1)
    steps = {"method": "finite-difference", "num_iters": 5, "xi": eps / 10}
    for label, colour, marker, search in (
        ("five steps from a random start", GREY, "s", {**steps, "seed": 0}),
        ("five steps from another start", BLUE, "D", {**steps, "seed": 3}),
        ("direct: one gradient, no start", RED, "o", {"method": "direct"}),
    ):
        value = vaal_ext.ldr_scores(model, x, eps=eps, **search)
        at = int((around - value).abs().argmin())
        plane.plot(*(x[0] + ring[at]), marker, color=colour, ms=7)
        curve.plot(angle[at], value, marker, color=colour, ms=7, label=label)
    plane.set(title="a sample between three classes", aspect="equal", xticks=[], yticks=[])
    plane.legend(loc="lower left", fontsize=7)
    curve.set(xlabel="direction of r, radians", ylabel="J in nats", title="J along the circle")
    curve.legend(fontsize=7)
    figure.savefig(path)


def _digits() -> tuple[nn.Module, Tensor, vaal_ext.PoolScores]:
    data = load_dataset("digits")
    model = _trained(data.train_x[:100], data.train_y[:100], classes=10, steps=150)
    pool = data.train_x[100:]
    scorer = vaal_ext.LDRScorer(model, eps=0.1, look=False)
    return model, pool, scorer.score(pool, progress=False)


def screen(path: Path) -> None:
    """LDR against λ, the threshold, and the line above which no sample of the pool lies."""
    model, pool, scores = _digits()
    with torch.no_grad():
        curvature = vaal_ext.ops.fisher_direction(model(pool))[1].numpy()
    ldr, threshold = scores.ldr, np.percentile(scores.ldr, PERCENTILE)
    gain = (ldr / curvature).max()
    figure, axes = _figure(1)
    left_out = curvature * gain < threshold
    for chosen, colour, label in (
        (left_out, GREY, "spared: LDR cannot reach the threshold"),
        (~left_out & (ldr <= threshold), BLUE, "scored, below the threshold"),
        (ldr > threshold, RED, "candidates"),
    ):
        axes.loglog(curvature[chosen], ldr[chosen], ".", color=colour, ms=4, label=label)
    ends = np.array([curvature[curvature > 0].min(), curvature.max()])
    axes.loglog(ends, gain * ends, color="black", lw=1, label="largest gain LDR / λ")
    axes.axhline(threshold, color="black", lw=1, ls="--", label="90th percentile")
    axes.set(xlabel="λ, from the clean forward alone", ylabel="LDR in nats")
    axes.set(ylim=(ldr[ldr > 0].min() / 2, 3 * ldr.max()))
    axes.legend(fontsize=7)
    figure.savefig(path)


def query(path: Path) -> None:
    """The percentile rank of every sample by its pseudo label, and what one query takes."""
    _, _, scores = _digits()
    picked = vaal_ext.select(scores.ldr, scores.pseudo_label, QUERY, percentile=PERCENTILE)
    rank = 100 * np.searchsorted(np.sort(scores.ldr), scores.ldr, side="right") / len(scores)
    across = scores.pseudo_label + np.random.default_rng(0).uniform(-0.3, 0.3, len(scores))
    candidates = rank > PERCENTILE
    figure, axes = _figure(1)
    axes.plot(across[~candidates], rank[~candidates], ".", color=GREY, ms=3, label="the pool")
    axes.plot(across[candidates], rank[candidates], ".", color=BLUE, ms=5, label="candidates")
    axes.plot(across[picked], rank[picked], "o", color=RED, ms=6, mfc="none", label="the query")
    axes.axhline(PERCENTILE, color="black", lw=1, ls="--")
    axes.set(xlabel="pseudo label", ylabel="percentile rank of LDR", ylim=(75, 101))
    axes.set_xticks(range(10))
    axes.legend(fontsize=7, loc="lower left")
    figure.savefig(path)


def _draw(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "_static" / "ideas"
    folder.mkdir(exist_ok=True)
    for draw in (worst_direction, screen, query):
        draw(folder / f"{draw.__name__}.png")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", _draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
