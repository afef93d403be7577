"""`vaal-ext query | label | train | predict`: rounds of labelling with people, and their use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vaal_ext.cli.exit_status import keeping

if TYPE_CHECKING:
    from torch import nn

    from vaal_ext.labelling.config import ProjectConfig
    from vaal_ext.labelling.project import Project

__all__ = ["label", "predict", "query", "train"]

_BEGIN = "A new project (later these stand in its config.json, which may be edited)"

_Project = Annotated[Path, typer.Option(help="The project's own folder.")]


def query(
    project: _Project,
    data: Annotated[
        str | None,
        typer.Option(
            help="folder:PATH, the images, at any depth below it.", rich_help_panel=_BEGIN
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="The names of the classes: cat,dog,fox.", rich_help_panel=_BEGIN),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            help="folder:PATH with images in CLASS/IMAGE to evaluate on.", rich_help_panel=_BEGIN
        ),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            help="Without --test: the share of the labels to evaluate on (0.2).",
            rich_help_panel=_BEGIN,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Scale and cut all images to squares of so many pixels.", rich_help_panel=_BEGIN
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Your network, as package.module:factory; by default the paper's.",
            rich_help_panel=_BEGIN,
        ),
    ] = None,
    query_size: Annotated[
        int | None, typer.Option(help="Images in a query (20).", rich_help_panel=_BEGIN)
    ] = None,
    pool_size: Annotated[
        int | None,
        typer.Option(
            help="Score only so many images, drawn anew for every query.", rich_help_panel=_BEGIN
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="As for vaal-ext run (vaal).", rich_help_panel=_BEGIN),
    ] = None,
    xi: Annotated[
        float | None,
        typer.Option(help="As for vaal-ext run (a tenth of eps).", rich_help_panel=_BEGIN),
    ] = None,
    eps: Annotated[
        float | None,
        typer.Option(
            help="As for vaal-ext run (a fiftieth of the images' length).", rich_help_panel=_BEGIN
        ),
    ] = None,
    predictions: Annotated[
        bool | None,
        typer.Option(
            "--predictions",
            help="Label Studio's tasks show the network's guess, which sways; otherwise none does.",
            rich_help_panel=_BEGIN,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Optimiser steps of one training; by default more for more labels.",
            rich_help_panel=_BEGIN,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of Adam.", rich_help_panel=_BEGIN)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn.", rich_help_panel=_BEGIN)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu or cuda; by default cuda where there is.", rich_help_panel=_BEGIN),
    ] = None,
    on_unreadable: Annotated[
        Literal["raise", "skip"] | None,
        typer.Option(
            help="At an image that cannot be read: stop (raise), or leave it out and name it.",
            rich_help_panel=_BEGIN,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode the images.")] = 0,
) -> None:
    """Ask people for the next labels: a table, a picture, tasks for Label Studio.

    The first query, with --data and --classes, begins a project; it is random.
    """
    from vaal_ext.labelling import steps as labelling

    given = {
        "images": _folder("data", data),
        "classes": None if classes is None else [name.strip() for name in classes.split(",")],
        "test": _folder("test", test),
        "held_out": held_out,
        "image_size": image_size,
        "model": model,
        "query_size": query_size,
        "pool_size": pool_size,
        "strategy": strategy,
        "xi": xi,
        "eps": eps,
        "predictions": predictions,
        "steps": steps,
        "learning_rate": learning_rate,
        "seed": seed,
        "device": device,
        "on_unreadable": on_unreadable,
    }
    with keeping(partial(_kept, project)):
        opened = _open(project, {name: value for name, value in given.items() if value is not None})
        _print(labelling.query(opened, _network(opened.config), workers=workers))


def label(
    answers: Annotated[
        Path, typer.Argument(help="A CSV with columns image and label, or Label Studio's export.")
    ],
    project: _Project,
) -> None:
    """Take answers back: a class, or skip, for each image. The last answer to an image counts."""
    from vaal_ext.labelling import steps as labelling
    from vaal_ext.labelling.project import Project

    with keeping(partial(_kept, project)):
        _print(labelling.label(Project(project), answers))


def train(project: _Project) -> None:
    """Train a network on the labels so far and evaluate it."""
    from vaal_ext.labelling import steps as labelling
    from vaal_ext.labelling.project import Project

    with keeping(partial(_kept, project)):
        opened = Project(project)
        _print(labelling.train(opened, _network(opened.config)))


def predict(
    project: _Project,
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    data: Annotated[
        str | None, typer.Option(help="folder:PATH, other images; by default the project's.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode the images.")] = 0,
) -> None:
    """Write for each image the class and the probabilities by the newest trained network."""
    from vaal_ext.labelling.prediction import predict as predicted
    from vaal_ext.labelling.project import Project

    folder = _folder("data", data)
    path = None if folder is None else Path(folder)
    with keeping(f"{out} is written whole or not at all", "to begin again"):
        opened = Project(project)
        _print(predicted(opened, _network(opened.config), out, folder=path, workers=workers))


def _open(path: Path, given: dict[str, Any]) -> Project:
    """The project, or a new one; ValueError where what is given is not what it has."""
    from vaal_ext.labelling.config import ProjectConfig
    from vaal_ext.labelling.images import ImageFiles
    from vaal_ext.labelling.learner import Learner
    from vaal_ext.labelling.project import Project

    there = Project(path) if (path / "config.json").exists() or not given else None
    if there is not None and (not given or there.asked() or there.given()):
        project = there
    else:  # nothing was asked yet: what is given now counts
        config = ProjectConfig.from_settings(
            given if there is None else there.config.settings() | given
        )
        # Images, network and test folder are tried before there is a project.
        images = ImageFiles(
            Path(config.images), config.image_size, on_unreadable=config.run.on_unreadable
        )
        images.shape  # noqa: B018  which reads an image
        Learner(config, images, _network(config)).require_test()
        project = Project.begin(path, config) if there is None else there.with_config(config)
    has = project.config.settings()
    for name, value in ProjectConfig.from_settings(has | given).settings().items():
        if name in given and value != has[name]:
            raise ValueError(
                f"the project's {name} is {has[name]!r}, the command says {value!r}: leave the "
                f"option out, or edit {path / 'config.json'}"
            )
    return project


def _folder(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    kind, _, path = text.partition(":")
    if kind != "folder" or not path:
        raise ValueError(f"{name} must be folder:PATH, got {text!r}")
    folder = Path(path).expanduser()
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}")
    return str(folder)


def _network(config: ProjectConfig) -> nn.Module | None:
    """The user's network, fresh under the project's seed; None where there is none."""
    import torch

    from vaal_ext.experiment.seeds import Stream, seeded, stream_seed
    from vaal_ext.network.user_model import make_model

    if config.model is None:
        return None
    with seeded(stream_seed(config.run.seed, Stream.WEIGHTS), torch.device("cpu")):
        return make_model(config.model)


def _kept(project: Path) -> str:
    """What an interrupted step leaves: each is committed as a whole."""
    if not (project / "config.json").exists():
        return f"no project was begun in {project} yet"
    return f"the finished steps are kept in {project}"


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)
