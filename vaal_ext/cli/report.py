"""`vaal-ext report`: runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaal_ext.cli.exit_status import keeping

__all__ = ["report"]


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders that vaal-ext run wrote.")],
    out: Annotated[Path, typer.Option(help="The folder for tables, pictures and report.html.")],
) -> None:
    """Compare runs: learning curves, table, LDR histogram, the images queried; one page of it."""
    from vaal_ext.report.write import write_report

    with keeping(f"what was written in {out} is whole, the rest is missing", "to write all"):
        for line in write_report(runs, out):
            print(line, flush=True)
