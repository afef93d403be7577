"""A project opened for a step: begun if need be, with the user's own network if it has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaal_ext.experiment.seeds import Stream, seeded, stream_seed
from vaal_ext.labelling.config import ProjectConfig
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.learner import Learner
from vaal_ext.labelling.project import Project
from vaal_ext.network.user_model import make_model

__all__ = ["kept", "opened", "own_network"]


def opened(path: Path, given: dict[str, Any]) -> Project:
    """The project in the folder `path`, or a new one with the settings `given`, by name.

    Until something was asked or answered, what is given changes a project that is there.

    Raises:
        TypeError, ValueError: no project, and nothing given; a bad setting, or one that is not what
            the project has; a network or a test folder that does not fit.
        OSError: an image that cannot be read, or a folder that cannot be written.
    """
    there = Project(path) if (path / "config.json").exists() or not given else None
    if there is not None and (not given or there.asked() or there.given()):
        project = there
    else:
        config = ProjectConfig.from_settings(
            given if there is None else there.config.settings() | given
        )
        # Images, network and test folder are tried before there is a project.
        images = ImageFiles.of(config)
        images.shape  # noqa: B018  which reads an image
        Learner(config, images, own_network(config)).require_test()
        project = Project.begin(path, config) if there is None else there.with_config(config)
    has = project.config.settings()
    for name, value in ProjectConfig.from_settings(has | given).settings().items():
        if name in given and value != has[name]:
            raise ValueError(
                f"the project's {name} is {has[name]!r}, the command says {value!r}: leave the "
                f"option out, or edit {path / 'config.json'}"
            )
    return project


def own_network(config: ProjectConfig) -> nn.Module | None:
    """The user's network, fresh under the project's seed; None where there is none.

    Errors: see :func:`vaal_ext.network.user_model.make_model`.
    """
    if config.model is None:
        return None
    with seeded(stream_seed(config.run.seed, Stream.WEIGHTS), torch.device("cpu")):
        return make_model(config.model)


def kept(path: Path) -> str:
    """What is kept of a step that was interrupted: each is committed as a whole."""
    if not (path / "config.json").exists():
        return f"no project was begun in {path} yet"
    return f"the finished steps are kept in {path}"
