"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder with MNIST/raw, FashionMNIST/raw, cifar-10-batches-py, or SVHN's .mat files."
    ),
]
Preset = Annotated[
    Literal["paper"] | None,
    typer.Option(help="The paper's search and numbers (xi = eps = 2) for what is not given."),
]
Xi = Annotated[
    float | None,
    typer.Option(help="Of --method finite-difference: its step, in units of the network's input."),
]
Search = Literal["direct", "finite-difference", "fisher"]
Method = Annotated[
    Search | None,
    typer.Option(
        help="How r is found: by one gradient (direct, the default), or by the paper's power "
        "iteration from a random start, with finite differences or exact products."
    ),
]
NumIters = Annotated[
    int | None,
    typer.Option(help="Gradient steps: of --method direct those after the first (0), else Ip (5)."),
]
Sign = Annotated[
    Literal["paper", "max"],
    typer.Option(help="Roughness at x + r, or the larger of those at x + r and x - r."),
]
OnUnreadable = Annotated[
    Literal["raise", "skip"],
    typer.Option(help="At an image that cannot be read: stop, or leave it out and name it."),
]
Percentile = Annotated[float, typer.Option(help="Candidates rank above this percentile (PRT).")]
ClassPrior = Annotated[
    str, typer.Option(help="Share of each class: uniform, predicted, none, or 0.2,0.3,0.5.")
]
Order = Annotated[
    Literal["ascending", "descending", "random"],
    typer.Option(help="Upward from the threshold, from the roughest down, or at random."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu or cuda; by default cuda where there is one.")
]
Backend = Annotated[
    Literal["fused", "reference"], typer.Option(help="The fused kernels, or plain PyTorch.")
]
