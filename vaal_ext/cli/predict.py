"""`vaal-ext predict`: what the network of a project says of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaal_ext.cli.exit_status import keeping
from vaal_ext.cli.options import ProjectFolder, Workers, folder_of

__all__ = ["predict"]


def predict(
    project: ProjectFolder,
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    data: Annotated[
        str | None, typer.Option(help="folder:PATH, other images; by default the project's.")
    ] = None,
    workers: Workers = 0,
) -> None:
    """Write for each image the class and the probabilities by the newest trained network."""
    from vaal_ext.labelling import prediction
    from vaal_ext.labelling.begin import own_network
    from vaal_ext.labelling.project import Project

    folder = folder_of("data", data)
    with keeping(f"{out} is written whole or not at all", "to begin again"):
        opened = Project(project)
        network = own_network(opened.config)
        for line in prediction.predict(opened, network, out, folder=folder, workers=workers):
            print(line, flush=True)
