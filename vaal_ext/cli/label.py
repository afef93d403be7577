"""`vaal-ext label`: answers of people taken into a project."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vaal_ext.cli.exit_status import keeping
from vaal_ext.cli.options import ProjectFolder

__all__ = ["label"]


def label(
    answers: Annotated[
        Path, typer.Argument(help="A CSV with columns image and label, or Label Studio's export.")
    ],
    project: ProjectFolder,
) -> None:
    """Take answers back: a class, or skip, for each image. The last answer to an image counts."""
    from vaal_ext.labelling import steps
    from vaal_ext.labelling.begin import kept
    from vaal_ext.labelling.project import Project

    with keeping(partial(kept, project)):
        for line in steps.label(Project(project), answers):
            print(line, flush=True)
