"""What all pictures share: an empty figure, its caption, its file, and how curves are told apart.

matplotlib is imported when a picture is drawn, not before, and always with the Agg canvas: no
display is needed.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vaal_ext.files.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "Style", "new_figure", "set_caption", "set_title", "styles", "write_figure"]

# Seven of Okabe and Ito's palette and Tol's wine: told apart also by readers with a colour vision
# deficiency. As many markers as have no factor in common with the colours, so that a colour comes
# back with another marker; by the markers curves are told apart in grey too.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255"
)  # fmt: skip
_MARKERS = "osD^vPX<*"
# A strategy of ours looks the same in every picture, and nothing beside one looks like another.
_OWN = {"vaal": 0, "random": 1, "entropy": 2, "margin": 3, "dfal": 4}

_REGULARISED = "+vat"
_TITLE, _CAPTION = 11, 8  # points
_LETTERS = 118  # of one point in an inch, as DejaVu Sans has them on average


class Style(NamedTuple):
    """How matplotlib draws a curve: colour, marker, what fills the marker, line."""

    colour: str
    marker: str
    fill: str
    line: str


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def set_title(figure: Figure, text: str) -> None:
    """The title of a figure, broken into lines that fit its width."""
    figure.suptitle(_wrapped(figure, text, _TITLE), fontsize=_TITLE)


def set_caption(figure: Figure, text: str) -> None:
    """Small print at the foot of a figure, broken into lines that fit its width; "": none."""
    figure.supxlabel(_wrapped(figure, text, _CAPTION), fontsize=_CAPTION, color="#404040")


def _wrapped(figure: Figure, text: str, size: int) -> str:
    width = int(_LETTERS / size * figure.get_size_inches()[0])
    return "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, width))


def write_figure(figure: Figure, path: Path) -> None:
    """A figure as a PNG file, whole or not at all."""
    with write_atomically(path, "wb") as handle:
        # Without matplotlib's version: pictures that look the same are the same file.
        figure.savefig(handle, format="png", metadata={"Software": None})


def styles(names: Sequence[str]) -> list[Style]:
    """A style for each name, all distinct for up to 72 strategies.

    Colour and marker stand for the strategy. One that trains with the regulariser ("+vat") has
    those of the one without; its line alone is dashed, and its markers alone are hollow.
    """
    plain = [name.replace(_REGULARISED, "", 1) for name in names]
    numbers = {name: _OWN[name] for name in plain if name in _OWN}
    taken = set(_OWN.values()) if numbers else set()
    rest = (n for n in itertools.count() if n not in taken)
    for name in plain:
        if name not in numbers:
            numbers[name] = next(rest)
    chosen = []
    for name, base in zip(names, plain, strict=True):
        n = numbers[base]
        colour, marker = COLOURS[n % len(COLOURS)], _MARKERS[n % len(_MARKERS)]
        regularised = name != base
        fill, line = ("white", "--") if regularised else (colour, "-")
        chosen.append(Style(colour, marker, fill, line))
    return chosen
