"""What the texts given to the options of the commands mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

__all__ = [
    "batch_size_of",
    "class_prior_of",
    "eps_of",
    "fill",
    "numbers",
    "percentile_of",
    "refuse_options_of_vaal",
    "search_of",
]


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
    from vaal_ext.strategies import STRATEGIES

    if strategy.partition("+")[0] in STRATEGIES:
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"--{name} is for the strategy vaal, got {strategy!r}")
