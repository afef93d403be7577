"""`vaal-ext train`: the network of a project, trained and evaluated."""

from __future__ import annotations

from functools import partial

from vaal_ext.cli.exit_status import keeping
from vaal_ext.cli.options import ProjectFolder

__all__ = ["train"]


def train(project: ProjectFolder) -> None:
    """Train a network on the labels so far and evaluate it."""
    from vaal_ext.labelling import steps
    from vaal_ext.labelling.begin import kept, own_network
    from vaal_ext.labelling.project import Project

    with keeping(partial(kept, project)):
        opened = Project(project)
        for line in steps.train(opened, own_network(opened.config)):
            print(line, flush=True)
