"""The options that several commands have, and what the texts given to options mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = [
    "DEVICE",
    "ON_UNREADABLE",
    "Backend",
    "ClassPrior",
    "DataRoot",
    "Device",
    "Method",
    "NumIters",
    "OnUnreadable",
    "Order",
    "PoolSize",
    "Preset",
    "ProjectFolder",
    "Search",
    "Sign",
    "Steps",
    "Workers",
    "Xi",
    "batch_size_of",
    "class_prior_of",
    "eps_of",
    "fill",
    "folder_of",
    "numbers",
    "percentile_of",
    "refuse_options_of_vaal",
    "search_of",
]

DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder with MNIST/raw, FashionMNIST/raw, cifar-10-batches-py, or SVHN's .mat files."
    ),
]
PoolSize = Annotated[
    int | None, typer.Option(help="Score only so many samples, drawn anew for every query.")
]
Preset = Annotated[
    Literal["paper"] | None,
    typer.Option(help="The paper's search and numbers (xi = eps = 2) for what is not given."),
]
Search = Literal["direct", "finite-difference", "fisher"]
Method = Annotated[
    Search | None,
    typer.Option(
        help="How r is found: by one gradient (direct, the default), or by the paper's power "
        "iteration from a random start, with finite differences or exact products."
    ),
]
Xi = Annotated[
    float | None,
    typer.Option(
        help="Of --method finite-difference: its step, in units of the network's input; for data "
        "of your own a tenth of eps unless given."
    ),
]
NumIters = Annotated[
    int | None,
    typer.Option(help="Gradient steps: of --method direct those after the first (0), else Ip (5)."),
]
Sign = Annotated[
    Literal["paper", "max"],
    typer.Option(help="Roughness at x + r, or the larger of those at x + r and x - r."),
]
ClassPrior = Annotated[
    str, typer.Option(help="Share of each class: uniform, predicted, none, or 0.2,0.3,0.5.")
]
Order = Annotated[
    Literal["ascending", "descending", "random"],
    typer.Option(help="Upward from the threshold, from the roughest down, or at random."),
]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps of one training.")]
DEVICE = "cpu, cuda or cuda:N; by default cuda where there is one."
Device = Annotated[str | None, typer.Option(help=DEVICE)]
Backend = Annotated[
    Literal["fused", "reference"], typer.Option(help="The fused kernels, or plain PyTorch.")
]
ON_UNREADABLE = "At an image that cannot be read: stop, or leave it out and name it."
OnUnreadable = Annotated[Literal["raise", "skip"], typer.Option(help=ON_UNREADABLE)]
Workers = Annotated[int, typer.Option(min=0, help="Processes that decode the images of a folder.")]
ProjectFolder = Annotated[Path, typer.Option("--project", help="The project's own folder.")]


def fill(preset: str | None, **given: float | str | None) -> list[Any]:
    """What was given, and for the rest the preset's numbers if there is one."""
    from vaal_ext.experiment.defaults import PRESETS

    known = PRESETS[preset] if preset else {}
    return [known.get(name) if value is None else value for name, value in given.items()]


def search_of(preset: str | None, method: str | None) -> str | None:
    """The preset, where its steps are those of the method."""
    from vaal_ext.experiment.defaults import PRESETS

    return preset if preset and PRESETS[preset]["method"] == method else None


def batch_size_of(text: str) -> int | Literal["auto"]:
    """A number, or "auto". ValueError on anything else."""
    try:
        return "auto" if text == "auto" else int(text)
    except ValueError:
        raise ValueError(f"batch-size must be auto or a whole number, got {text!r}") from None


def eps_of(text: str | None) -> float | Literal["auto"] | None:
    """A number, or "auto"; None for an option not given. ValueError on another text."""
    try:
        return None if text is None else "auto" if text == "auto" else float(text)
    except ValueError:
        raise ValueError(f"eps must be auto or a number, got {text!r}") from None


def numbers(name: str, text: str | None) -> list[float] | None:
    """Numbers with commas between them; None if not given. ValueError on another text."""
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} must be numbers with commas between, got {text!r}") from None


def folder_of(name: str, text: str | None) -> Path | None:
    """The folder that "folder:PATH" names; None for an option not given.

    Raises:
        ValueError: another text. FileNotFoundError: there is no such folder.
    """
    if text is None:
        return None
    kind, _, path = text.partition(":")
    if kind != "folder" or not path:
        raise ValueError(f"{name} must be folder:PATH, got {text!r}")
    folder = Path(path).expanduser()
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}")
    return folder


def percentile_of(text: str | None) -> float | str | None:
    """A number, or "accuracy"; None for an option not given. ValueError on another text."""
    try:
        return text if text in (None, "accuracy") else float(text)
    except ValueError:
        raise ValueError(f"percentile must be a number or accuracy, got {text!r}") from None


def class_prior_of(text: str) -> str | list[float] | None:
    """The class_prior of :func:`vaal_ext.select`. ValueError on a text that is none."""
    if text == "none":
        return None
    if text in ("uniform", "predicted"):
        return text
    try:
        return [float(weight) for weight in text.split(",")]
    except ValueError:
        raise ValueError(
            "class-prior must be uniform, predicted, none or one weight per class with commas "
            f"between them, got {text!r}"
        ) from None


def refuse_options_of_vaal(strategy: str, given: Mapping[str, Any]) -> None:
    """ValueError where one of the options is given (is not None): `strategy` would not read it.

    An unknown strategy is left to who knows them all.
    """
    from vaal_ext.strategies import STRATEGIES, parse_strategy

    if parse_strategy(strategy)[0] in STRATEGIES:
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"--{name} is for the strategy vaal, got {strategy!r}")
