"""`vaal-ext query`: a project begun, and the images that people are asked for next."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import typer

from vaal_ext.cli.exit_status import keeping
from vaal_ext.cli.options import DEVICE, ON_UNREADABLE, ProjectFolder, Workers, folder_of

__all__ = ["query"]


def _new(help: str, *names: str) -> Any:
    """An option that a new project alone takes; `names` where they are not the parameter's."""
    panel = "A new project (later these stand in its config.json, which may be edited)"
    return typer.Option(*names, help=help, rich_help_panel=panel)


def query(
    project: ProjectFolder,
    data: Annotated[str | None, _new("folder:PATH, the images, at any depth below it.")] = None,
    classes: Annotated[str | None, _new("The names of the classes: cat,dog,fox.")] = None,
    test: Annotated[
        str | None, _new("folder:PATH with images in CLASS/IMAGE to evaluate on.")
    ] = None,
    held_out: Annotated[
        float | None, _new("Without --test: the share of the labels to evaluate on (0.2).")
    ] = None,
    image_size: Annotated[
        int | None, _new("Scale and cut all images to squares of so many pixels.")
    ] = None,
    model: Annotated[
        str | None, _new("Your network, as package.module:factory; by default the paper's.")
    ] = None,
    query_size: Annotated[int | None, _new("Images in a query (20).")] = None,
    pool_size: Annotated[
        int | None, _new("Score only so many images, drawn anew for every query.")
    ] = None,
    strategy: Annotated[str | None, _new("As for vaal-ext run (vaal).")] = None,
    xi: Annotated[float | None, _new("As for vaal-ext run (a tenth of eps).")] = None,
    eps: Annotated[
        float | None, _new("As for vaal-ext run (a fiftieth of the images' length).")
    ] = None,
    predictions: Annotated[
        bool | None,
        _new(
            "Label Studio's tasks show the network's guess, which sways; otherwise none does.",
            "--predictions",
        ),
    ] = None,
    steps: Annotated[
        int | None, _new("Optimiser steps of one training; by default more for more labels.")
    ] = None,
    learning_rate: Annotated[float | None, _new("Of Adam.")] = None,
    seed: Annotated[int | None, _new("Of everything that is drawn.")] = None,
    device: Annotated[str | None, _new(DEVICE)] = None,
    on_unreadable: Annotated[Literal["raise", "skip"] | None, _new(ON_UNREADABLE)] = None,
    workers: Workers = 0,
) -> None:
    """Ask people for the next labels: a table, a picture, tasks for Label Studio.

    The first query, with --data and --classes, begins a project; it is random.
    """
    from vaal_ext.labelling import begin
    from vaal_ext.labelling import steps as labelling

    settings = {
        "images": folder_of("data", data),
        "classes": None if classes is None else [name.strip() for name in classes.split(",")],
        "test": folder_of("test", test),
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
    given = {name: value for name, value in settings.items() if value is not None}
    with keeping(partial(begin.kept, project)):
        opened = begin.opened(project, given)
        network = begin.own_network(opened.config)
        for line in labelling.query(opened, network, workers=workers):
            print(line, flush=True)
