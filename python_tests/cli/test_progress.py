"""Bars on a terminal, in a notebook, and as lines in a log file."""

from __future__ import annotations

import io
import sys
import time
import types

import pytest
from terminal import Terminal

from vaal_ext import progress
from vaal_ext.progress import announced, progress_bar, work_begins


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so, for tqdm too."""
    now = [1000.0]
    for kind in {progress.tqdm, progress._Lines}:
        monkeypatch.setattr(kind, "monitor_interval", 0)  # its thread would look at a real clock
    real = progress.tqdm.__init__

    def with_clock(self, *arguments, **settings):
        real(self, *arguments, **settings)
        self._time = lambda: now[0]
        self.start_t = self.last_print_t = now[0]

    monkeypatch.setattr(progress.tqdm, "__init__", with_clock)
    return now


def work(clock, *, steps: int, seconds: float, show: bool = True) -> None:
    for _ in progress_bar(range(steps), show=show, desc="working", unit="step"):
        clock[0] += seconds


def test_a_log_file_gets_a_line_a_minute(monkeypatch, clock):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    work(clock, steps=10_000, seconds=0.06)  # ten minutes
    lines = log.getvalue().splitlines()
    assert 9 <= len(lines) <= 10
    assert all(line.startswith("working: ") for line in lines)
    assert "| 1001/10000 [01:00" in lines[0]  # in the step after the minute
    assert "\r" not in log.getvalue()


def test_what_is_quick_leaves_nothing_in_a_log_file(monkeypatch, clock):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    work(clock, steps=100, seconds=0.5)
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar_after_two_seconds(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    work(clock, steps=10, seconds=0.15)
    assert terminal.getvalue() == ""
    work(clock, steps=10, seconds=1.0)
    shown = terminal.getvalue()
    assert "working:  50%" in shown
    assert shown.endswith("\r")  # and it is gone
    work(clock, steps=10, seconds=1.0, show=False)
    assert terminal.getvalue() == shown


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_it_shows_while_the_first_step_takes_long(monkeypatch, stream):
    """By a real clock, a short one; the steps wait until something is shown."""
    monkeypatch.setattr(progress, "_SECONDS_BEFORE_A_BAR", 0.02)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.02)
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)

    def until(count: int) -> None:
        deadline = time.monotonic() + 60
        while shown.getvalue().count("working: ") < count:
            assert time.monotonic() < deadline, shown.getvalue()
            time.sleep(0.005)

    with progress_bar(total=3, show=True, desc="working", unit="step") as bar:
        until(2)
        assert "| 0/3 [" in shown.getvalue()
        bar.update()
        # What a step draws may come before the thread's next line.
        until(shown.getvalue().count("working: ") + 2)
        assert "| 1/3 [" in shown.getvalue()
    if stream is Terminal:
        assert shown.getvalue().endswith("\r")  # it is gone
    before = shown.getvalue()
    with progress_bar(total=3, show=False, desc="working", unit="step"):
        time.sleep(0.1)
    assert shown.getvalue() == before


def test_what_is_announced_is_told_once_with_the_first_bar(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with announced("counting to three"):
        assert log.getvalue() == ""
        list(progress_bar(range(3), show=False, desc="working", unit="step"))
        assert log.getvalue() == ""
        for _ in range(2):
            list(progress_bar(range(3), show=True, desc="working", unit="step"))
    with announced("never begun"):
        pass
    work_begins()
    assert log.getvalue() == "counting to three\n"


def test_a_notebook_gets_what_tqdm_has_for_it(monkeypatch):
    """Its stderr is no terminal, and yet it can draw a bar anew."""
    made = []
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr("tqdm.auto.tqdm", lambda **settings: made.append(settings))
    progress_bar(range(3), show=True, desc="working", unit="step")
    assert made[0]["disable"] is False
    assert made[0]["delay"] == 2
