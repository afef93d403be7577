"""`vaal-ext reproduce`: the paper's figures and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaal_ext.cli.shared import DataRoot, Device

__all__ = ["reproduce"]


def reproduce(
    exhibits: Annotated[
        list[str],
        typer.Argument(
            help="fig3 fig4 fig5 fig6 fig7 fig9 fig10 table2 table3 table4 (the paper's, or all); "
            "beside it toys digits fashion; what-ldr-is what-ldr-is-mnist radius radius-mnist "
            "radius-fashion radius-cifar10; radius-toys radius-digits vat-toys search-digits."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for runs, tables and figures.")],
    data_root: DataRoot = None,
    data: Annotated[
        str | None,
        typer.Option(help="Run on folder:PATH or npz:PATH, with the settings of the exhibit's."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Only this row or curve of the exhibit; may be given again."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many.")] = None,
    pool_size: Annotated[
        int | None, typer.Option(help="Score only so many samples, drawn anew for every query.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Queries of a run; fig3 to fig5 are about one.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of one training.")] = None,
    device: Device = None,
    show_only: Annotated[
        bool, typer.Option("--show-only", help="Run nothing: draw what the runs have come to.")
    ] = False,
) -> None:
    """Make figures and tables of the paper: run what is missing, go on where it was cut off.

    Started several times with the same options, the processes share the runs among them.
    """
    from vaal_ext.reproduce.plan import exhibits_named
    from vaal_ext.reproduce.runner import Overrides, plan_runs, results, run_missing
    from vaal_ext.reproduce.show import show

    chosen = exhibits_named(exhibits)
    root = None if data_root is None else str(data_root)
    overrides = Overrides(root, data, tuple(variant or ()), seeds, rounds, pool_size, steps, device)
    if not show_only:
        run_missing(plan_runs(list(chosen.values()), overrides, out))
    for name, exhibit in chosen.items():
        for line in show(name, exhibit, results(exhibit, overrides, out), out / name):
            print(line, flush=True)
