"""`vaal-ext reproduce`: the paper's figures and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaal_ext.cli.exit_status import keeping
from vaal_ext.cli.options import DataRoot, Device, PoolSize, Steps

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
        typer.Option(
            help="Only this row or curve of the exhibit (--dry-run lists them); may be given again."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many.")] = None,
    pool_size: PoolSize = None,
    rounds: Annotated[
        int | None, typer.Option(help="Queries of a run; fig3 to fig5 are about one.")
    ] = None,
    steps: Steps = None,
    device: Device = None,
    show_only: Annotated[
        bool, typer.Option("--show-only", help="Run nothing: draw what the runs have come to.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be run and written, and do nothing of it."),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Put figures and tables in the place of those made of more (seeds, queries, "
            "steps, pool, variants), not beside them.",
        ),
    ] = False,
) -> None:
    """Make figures and tables of the paper: run what is missing, go on where it was cut off.

    Started several times with the same options, the processes share the runs among them.
    """
    from vaal_ext.paper import dry_run as rehearsal
    from vaal_ext.paper.plan import exhibits_named
    from vaal_ext.paper.planned import Overrides, plan_runs
    from vaal_ext.paper.runner import results, run_missing
    from vaal_ext.paper.show import show

    chosen = exhibits_named(exhibits)
    root = None if data_root is None else str(data_root)
    overrides = Overrides(root, data, tuple(variant or ()), seeds, rounds, pool_size, steps, device)
    if dry_run:
        for line in rehearsal.dry_run(chosen, overrides, out, replace=replace):
            print(line, flush=True)
        return
    with keeping(f"the finished rounds of all runs are kept in {out / 'runs'}"):
        if not show_only:
            run_missing(plan_runs(list(chosen.values()), overrides, out))
        for name, exhibit in chosen.items():
            found = results(exhibit, overrides, out)
            for line in show(name, exhibit, found, out / name, replace=replace):
                print(line, flush=True)
