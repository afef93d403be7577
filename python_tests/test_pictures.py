"""The committed pictures are what the present code draws of the committed data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import redraw


def test_no_picture_is_older_than_its_data_or_its_code():
    old = [picture.png for picture in redraw.outdated(redraw.RESULTS)]
    assert not old, "type: python benchmarks/redraw.py"


def test_every_picture_can_be_redrawn_or_says_what_it_would_take():
    there = {path.relative_to(redraw.RESULTS).as_posix() for path in redraw.RESULTS.rglob("*.png")}
    drawn = {picture.png for picture in redraw.pictures(redraw.RESULTS)}
    assert drawn | set(redraw.NOT_REDRAWN) == there
    assert not drawn & set(redraw.NOT_REDRAWN)


@pytest.fixture
def results(tmp_path):
    """A copy of the folder of results, in which nothing is old."""
    shutil.copytree(redraw.RESULTS, tmp_path / "results")
    return tmp_path / "results"


def old_in(results) -> set[str]:
    return {picture.png for picture in redraw.outdated(results)}


def test_another_number_makes_its_pictures_old(results):
    table = results / "paper/fig6/statistics_mnist/statistics.csv"
    table.write_text(table.read_text().replace("0.8498", "0.8499", 1))
    assert old_in(results) == {"paper/fig6/fig6.png", "paper/fig6/statistics_mnist/win_matrix.png"}


def test_other_line_ends_make_nothing_old(results):
    """As git writes them on Windows."""
    table = results / "paper/fig9/fig9.csv"
    table.write_bytes(table.read_bytes().replace(b"\n", b"\r\n"))
    assert old_in(results) == set()


def test_another_picture_is_not_the_one_that_was_drawn(results):
    shutil.copy(results / "paper/fig3/fig3.png", results / "paper/fig4/fig4.png")
    (results / "speed.png").unlink()
    assert old_in(results) == {"paper/fig4/fig4.png", "speed.png"}


@pytest.mark.parametrize(
    ("change", "noticed"),
    [("dpi=150", True), ("# only said\n    figure = Figure(", False)],
)
def test_other_code_makes_every_picture_old(results, tmp_path, monkeypatch, change, noticed):
    """Code, not what is said of it."""
    text = Path(redraw.canvas.__file__).read_text(encoding="utf-8")
    was = "dpi=150" if noticed else "figure = Figure("
    assert was in text
    changed = tmp_path / "canvas.py"
    changed.write_text(text.replace(was, "dpi=151" if noticed else change), encoding="utf-8")
    monkeypatch.setattr(redraw.canvas, "__file__", str(changed))
    monkeypatch.setattr(redraw, "_code_sum", redraw._code_sum.__wrapped__)
    everything = {picture.png for picture in redraw.pictures(results)}
    assert old_in(results) == (everything if noticed else set())
