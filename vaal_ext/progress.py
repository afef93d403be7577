"""Progress bars: on a terminal, in a notebook, and as a line a minute in a log file."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["announced", "progress_bar", "work_begins"]

_SECONDS_BEFORE_A_BAR = 2.0
_SECONDS_BETWEEN_LINES = 60.0

# How much longer than that nothing may be drawn: where steps end, they draw, and know how many.
_PATIENCE = 1.0

# What is told when the work begins.
_announcements: list[str] = []


@contextmanager
def announced(text: str) -> Iterator[None]:
    """`text` is told on stderr when the work in the block begins: when all that may be wrong with
    its arguments has been looked at, and before anything takes long."""
    _announcements.append(text)
    try:
        yield
    finally:
        _announcements.clear()


def work_begins() -> None:
    """Tells what was announced: for bars that are shown, and for what takes long before them."""
    while _announcements:
        print(_announcements.pop(0), file=sys.stderr, flush=True)


class _Bar(tqdm):
    """A bar that a thread draws where no step ends for long: for its delay, and each time again."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._closed = threading.Event()
        self._drawn = time.monotonic()
        super().__init__(*arguments, **settings)
        if not self.disable:
            look_after = (weakref.ref(self), self._closed, self.delay + _PATIENCE)
            threading.Thread(target=_keep_drawing, args=look_after, daemon=True).start()

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        if msg is None and self._closed.is_set():
            return False  # the thread came a moment too late
        self._drawn = time.monotonic()
        return self._show(msg, pos)

    def _show(self, msg: str | None, pos: int | None) -> Any:
        return super().display(msg, pos)

    def close(self) -> None:
        self._closed.set()
        super().close()


def _keep_drawing(reference: weakref.ref[_Bar], closed: threading.Event, every: float) -> None:
    """Until the bar is closed, or nobody has it any more."""
    wait = 0.0
    while not closed.wait(wait):
        bar = reference()
        if bar is None:
            return
        wait = bar._drawn + every - time.monotonic()
        if wait <= 0:
            bar.delay = 0  # or tqdm would not clear, at the end, what it has not drawn itself
            bar.refresh()
            wait = every
        del bar


class _Lines(_Bar):
    """A bar that prints its state as a line now and then: nothing is drawn over in a file."""

    def _show(self, msg: str | None, pos: int | None) -> bool:
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
    stderr is anything else (a log file, a pipe) it is a line a minute, the first after a minute.
    On a terminal and in a log that holds also while the first step is not done.

    Args:
        show: False makes a bar that shows nothing.
        desc: what is going on.
        unit: of the steps, in the singular.
    """
    if show:
        work_begins()
    settings = {"iterable": iterable, "desc": desc, "unit": f" {unit}s", "total": total}
    settings |= {"disable": not show, "leave": False}
    if "ipykernel" in sys.modules:
        from tqdm.auto import tqdm as notebook_bar  # a widget where there are widgets, else text

        return notebook_bar(**settings, delay=_SECONDS_BEFORE_A_BAR)
    if sys.stderr.isatty():
        return _Bar(**settings, delay=_SECONDS_BEFORE_A_BAR)
    every = _SECONDS_BETWEEN_LINES
    return _Lines(**settings, delay=every, mininterval=every, maxinterval=every)
