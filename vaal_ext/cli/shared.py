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
    typer.Option(help="The paper's numbers (xi = eps = 2) for what is not given."),
]
Xi = Annotated[
    float | None,
    typer.Option(help="Length of the finite-difference step, in units of the network's input."),
]
Method = Annotated[
    Literal["finite-difference", "fisher"],
    typer.Option(help="Gradients at x + xi u, or exact products with the Hessian at x (no xi)."),
]
Sign = Annotated[
    Literal["paper", "max", "mean"],
    typer.Option(help="Roughness at x + r, or the larger or the mean of those at x + r and x - r."),
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
