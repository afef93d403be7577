"""`vaal-ext select`: which samples of a scored pool to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaal_ext.cli.exit_status import keeping
from vaal_ext.cli.options import ClassPrior, Order, class_prior_of

__all__ = ["select"]


def select(
    scores: Annotated[Path, typer.Option(help="What vaal-ext score wrote.")],
    n: Annotated[int, typer.Option("--n", help="Number of samples to choose.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    percentile: Annotated[
        float, typer.Option(help="Candidates rank above this percentile (PRT).")
    ] = 90.0,
    class_prior: ClassPrior = "uniform",
    order: Order = "ascending",
    seed: Annotated[int, typer.Option(help="For --order random.")] = 0,
) -> None:
    """Choose a class-balanced query from the scores of a pool."""
    from vaal_ext.cli.work import select as work

    prior = class_prior_of(class_prior)
    with keeping(f"{out} is written whole or not at all", "to begin again"):
        print(
            work.write_query(
                scores, n, out, percentile=percentile, class_prior=prior, order=order, seed=seed
            )
        )
