"""A page of HTML that is one file: sections of text, tables that sort, charts, and images.

It asks the network for nothing when it is opened, and its content security policy lets it ask for
nothing. Charts are plotly's; where plotly is not installed the same is shown as a picture.
"""

from __future__ import annotations

import base64
import functools
import gzip
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vaal_ext.files.atomic import write_atomically

__all__ = ["Page", "Section"]

_NO_PLOTLY = (
    "plotly is not installed: its charts are pictures. They answer to the mouse after "
    "pip install plotly"
)
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
_MARK = {True: "wrong", False: "right"}  # how the caption of an image is drawn
_SMALL = 48  # pixels: an image of up to so many is magnified pixel by pixel
_SIDE = 128  # pixels, of the longer side of a larger one: twice what it is shown with


def _has_plotly() -> bool:
    """Whether charts can be drawn."""
    return find_spec("plotly") is not None


@dataclass
class Section:
    """A part of a page with a title; whatever is added comes below what there is.

    All texts are plain; they are escaped here.
    """

    title: str
    parts: list[str] = field(default_factory=list)
    has_charts: bool = False

    def heading(self, text: str) -> None:
        """A title inside the section."""
        self.parts.append(f"<h3>{escape(text)}</h3>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self.parts.append(f"<p>{escape(text)}</p>")

    def missing(self, text: str) -> None:
        """A paragraph that says what there is not, and why."""
        self.parts.append(f'<p class="missing">{escape(text)}</p>')

    def table(
        self,
        title: str,
        lines: Sequence[Sequence[str]],
        *,
        prose: bool = False,
        folded: bool = False,
    ) -> None:
        """A table whose head is the first line; a click on a column's head sorts it.

        Wide tables scroll in a box of their own; those of prose break their lines. A folded one
        opens with a click on its title.
        """
        head, *body = lines
        names = "".join(
            f'<th scope="col" aria-sort="none"><button type="button">{escape(name)}</button></th>'
            for name in head
        )
        rows = "".join(
            f'<tr><th scope="row">{escape(row[0])}</th>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
            + "</tr>\n"
            for row in body
        )
        caption = "" if folded else f"<caption>{escape(title)}</caption>"
        kind = "prose" if prose else "numbers"
        html = (
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
            f'<table class="{kind}">{caption}<thead><tr>{names}</tr></thead>\n'
            f"<tbody>{rows}</tbody></table></div>"
        )
        if folded:
            html = f"<details><summary>{escape(title)}</summary>{html}</details>"
        self.parts.append(html)

    def chart(
        self,
        figure: Callable[[], Any],
        picture: Callable[[Path], None],
        alt: str,
        caption: str = "",
    ) -> None:
        """What `figure` makes, a plotly.graph_objects.Figure; or, where there is no plotly, the
        PNG that `picture` writes. `alt` says in words what is to be seen."""
        self.has_charts = True
        if _has_plotly():
            data = figure().to_json().replace("</", "<\\/")
            shown = (
                f'<div class="chart" role="img" aria-label="{escape(alt)}"></div>'
                f'<script type="application/json">{data}</script>'
            )
        else:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "picture.png"
                picture(path)
                shown = _img(path.read_bytes(), "png", alt)
        said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self.parts.append(f"<figure>{shown}{said}</figure>")

    def images(self, images: Sequence[tuple[np.ndarray, str, str, bool]]) -> None:
        """A row of images, each with its pixels (float [H, W] or [H, W, 3] in 0..1), its
        alternative text, the caption below it, and whether to mark that."""
        items = "".join(
            f"<li>{_thumbnail(pixels, alt)}"
            f'<span class="{_MARK[marked]}">{escape(caption)}</span></li>\n'
            for pixels, alt, caption, marked in images
        )
        self.parts.append(f'<ul class="tiles">{items}</ul>')


@dataclass(frozen=True)
class Page:
    """A page with a title, a paragraph below it, and its sections."""

    title: str
    about: str
    sections: Sequence[Section]

    def write(self, path: Path, what: str) -> str:
        """The page as an HTML file, whole or not at all; a line that says so, and `what` it shows.

        OSError naming the file.
        """
        charts = any(section.has_charts for section in self.sections)
        lacking = charts and not _has_plotly()
        links = "".join(
            f'<li><a href="#part-{i}">{escape(section.title)}</a></li>'
            for i, section in enumerate(self.sections, 1)
        )
        body = "".join(
            f'<section id="part-{i}"><h2>{escape(section.title)}</h2>\n'
            + "\n".join(section.parts)
            + "</section>\n"
            for i, section in enumerate(self.sections, 1)
        )
        note = f'<p class="missing">{_NO_PLOTLY}.</p>\n' if lacking else ""
        library = ""
        if charts and not lacking:
            library = f'<script type="text/plain" id="plotly">{_plotly()}</script>\n'
        html = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<link rel="icon" href="data:,">\n'
            f"<title>{escape(self.title)}</title>\n<style>{_file('page.css')}</style></head>\n"
            f"<body><main><h1>{escape(self.title)}</h1>\n<p>{escape(self.about)}</p>\n{note}"
            f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav>\n'
            "<noscript><p>Without JavaScript there are no charts, and tables do not sort; the "
            f"numbers are all here.</p></noscript>\n{body}</main>\n"
            f"{library}<script>{_file('page.js')}</script></body></html>\n"
        )
        with write_atomically(path, "w") as file:
            file.write(html)
        return f"{path}: {what}" + (f". {_NO_PLOTLY}" if lacking else "")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> str:
    """plotly.js, compressed (its package has no smaller bundle), as text."""
    from plotly.offline import get_plotlyjs

    # No time stamp: the same report is the same file.
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _thumbnail(pixels: np.ndarray, alt: str) -> str:
    from PIL import Image

    image = Image.fromarray(np.clip(255 * pixels, 0, 255).round().astype(np.uint8))
    small = max(image.size) <= _SMALL
    if not small:
        image.thumbnail((_SIDE, _SIDE))
    kind = "png" if small else "jpeg"
    file = io.BytesIO()
    image.save(file, format=kind)
    return _img(file.getvalue(), kind, alt, "small" if small else "")


def _img(content: bytes, kind: str, alt: str, name: str = "") -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    style = f' class="{name}"' if name else ""
    return f'<img{style} src="{source}" alt="{escape(alt)}">'
