"""The commands of `vaal-ext` together, and how one is run.

What a command needs (torch, matplotlib) is imported when it runs, so that `--help` is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from vaal_ext.cli.bench import bench
from vaal_ext.cli.exit_status import exit_status
from vaal_ext.cli.info import info
from vaal_ext.cli.label import label
from vaal_ext.cli.predict import predict
from vaal_ext.cli.query import query
from vaal_ext.cli.report import report
from vaal_ext.cli.reproduce import reproduce
from vaal_ext.cli.run import run
from vaal_ext.cli.score import score
from vaal_ext.cli.select import select
from vaal_ext.cli.train import train

__all__ = ["app", "main"]

app = typer.Typer(
    name="vaal-ext",
    help="Virtual Adversarial Active Learning: score a pool, choose what to label, compare.",
    epilog="With VAAL_TRACEBACK=1 in the environment an error shows where it came from.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

# In the order of --help: those of a pool and of runs, then those for people who label.
for _command in (
    info, score, select, run, report, reproduce, query, label, train, predict, bench,
):  # fmt: skip
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (by default the process's); returns the exit status."""
    command = typer.main.get_command(app)
    _name_no_type_of_flags(command)
    return exit_status(command, arguments)


def _name_no_type_of_flags(group: Any) -> None:
    """--help shows --compile alone: "--compile <bool>", as typer has it, looks like one value."""
    for command in (group, *group.commands.values()):
        help_option = command.get_help_option(typer.Context(command))
        for option in (*command.params, help_option):
            if getattr(option, "is_flag", False):
                option.metavar = ""
