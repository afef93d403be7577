"""Progress bars: on a terminal, in a notebook, and as a line a minute in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["progress_bar"]

_SECONDS_BETWEEN_LINES = 60.0


class _Lines(tqdm):
    """A bar that prints its state as a line now and then: nothing is drawn over in a file."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if msg is None:  # "" would clear the bar
            print(self, file=self.fp, flush=True)
        return False


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    show: bool,
    desc: str,
    unit: str,
    total: int | None = None,
) -> tqdm:
    """A tqdm bar over `iterable`, or one of `total` steps to be updated by hand.

    On a terminal and in a notebook it appears after two seconds and goes away at the end. Where
    stderr is anything else (a log file, a pipe) it is a line a minute, none in the first.

    Args:
        show: False makes a bar that shows nothing.
        desc: what is going on.
        unit: of the steps, in the singular.
    """
    settings = {"iterable": iterable, "desc": desc, "unit": f" {unit}s", "total": total}
    settings |= {"disable": not show, "leave": False}
    if "ipykernel" in sys.modules:
        from tqdm.auto import tqdm as notebook_bar  # a widget where there are widgets, else text

        return notebook_bar(**settings, delay=2)
    if sys.stderr.isatty():
        return tqdm(**settings, delay=2)
    every = _SECONDS_BETWEEN_LINES
    return _Lines(**settings, delay=every, mininterval=every, maxinterval=every)
