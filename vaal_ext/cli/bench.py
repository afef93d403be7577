"""`vaal-ext bench`: the benchmarks of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vaal_ext.cli.exit_status import end, keeping
from vaal_ext.cli.options import Device

__all__ = ["bench"]


def bench(
    name: Annotated[
        Literal[
            "accuracy",
            "ops",
            "ldr",
            "deepfool",
            "pool",
            "stability",
            "direction",
            "precision",
            "search",
            "query",
        ]
        | None,
        typer.Argument(help="Which benchmark; by default all."),
    ] = None,
    device: Device = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(help="CPU threads; may be given again. By default 1, then 2 where there are."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the CSV files (made if it is not there).")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder with MNIST/raw, for networks trained on it beside digits."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer turns, float32 only.")] = False,
) -> None:
    """Measure accuracy and speed against plain PyTorch. Needs a clone of the repository."""
    from vaal_ext.cli.work.bench import NAMES, run

    names = NAMES if name is None else (name,)
    kept = "what was printed is all there is" + ("" if out is None else f", {out} got no table")
    with keeping(kept, "to begin again"):
        status = run(names, device, threads, out, data_root, quick=quick)
    end(status)
