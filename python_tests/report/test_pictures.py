"""The committed pictures are what the present code draws of the committed data."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import redraw

from vaal_ext.paper import figures, what_ldr_is


def test_no_picture_is_older_than_its_data_or_its_code():
    old = [picture.png for picture in redraw.outdated(redraw.RESULTS)]
    assert not old, "type: python benchmarks/redraw.py"


def test_every_picture_can_be_redrawn():
    there = {path.relative_to(redraw.RESULTS).as_posix() for path in redraw.RESULTS.rglob("*.png")}
    drawn = {picture.png for picture in redraw.pictures(redraw.RESULTS)}
    assert drawn == there


def test_every_picture_of_runs_says_what_it_was_made_of():
    """Seeds and queries, or what its table says of them. (Its caption may say more.)"""
    said = {picture.png: picture.title for picture in redraw.pictures(redraw.RESULTS)}
    del said["accuracy.png"], said["speed.png"], said["query.png"]  # of no runs
    silent = [png for png, text in said.items() if not re.search(r"\d seeds?\b|queries of", text)]
    assert not silent
    assert said["digits.png"].endswith("|3 seeds, 8 queries of 10")
    assert said["paper/fig3/fig3.png"].endswith(
        "\n1 seed, 1 query of 10 after 10 labels, a pool of 800"
    )
    wins = said["paper/fashion/statistics_fashion-mnist/win_matrix.png"]
    assert wins.endswith("more accurate\n2 seeds, 100 to 1,100 labels")
    assert said["paper/fig5/fig5.png"].endswith("\n20 seeds, 100 steps a training")


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


@pytest.mark.parametrize(
    ("committed", "load"),
    [
        ("fig3/fig3.npz", figures.load_panels),
        ("what-ldr-is/what-ldr-is_digits.npz", what_ldr_is.load_pools),
    ],
)
def test_a_damaged_file_of_what_is_drawn_is_refused_in_a_line(committed, load, tmp_path):
    path = tmp_path / "drawn.npz"
    content = (redraw.RESULTS / "paper" / committed).read_bytes()
    for damaged in (content[:-40], content[:900] + bytes([content[900] ^ 1]) + content[901:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"drawn\.npz is not a complete \.npz of plain"):
            load(path)


def test_what_is_drawn_from_a_file_is_what_was_saved(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        [
            figures.Panel(
                f"{row}, {column}",
                probability=rng.random((9, 9)),
                axes=rng.random((2, 9)),
                x=rng.random((40, 2)),
                y=np.arange(40) % 2,
                labelled=np.arange(4 + row),
                queried=np.arange(10, 12 + column),
            )
            for column in range(2)
        ]
        for row in range(3)
    ]
    figures.save_panels(tmp_path / "p.npz", rows)
    again = figures.load_panels(tmp_path / "p.npz")
    assert [len(row) for row in again] == [2, 2, 2]
    chain = itertools.chain.from_iterable
    for panel, read in zip(chain(rows), chain(again), strict=True):
        assert read.title == panel.title
        for name in ("axes", "x", "y", "labelled", "queried"):
            np.testing.assert_array_equal(getattr(read, name), getattr(panel, name))
        # Half precision: 11 bits of numbers up to 1.
        np.testing.assert_allclose(read.probability, panel.probability, atol=2**-12)
    pools = {
        name: what_ldr_is.ScoredPool(
            *np.random.default_rng(i).random((3, 5)), wrong=np.eye(5)[i] > 0
        )
        for i, name in enumerate(("vaal, eps 0.1", "vaal, eps 2 (paper)"))
    }
    what_ldr_is.save_pools(tmp_path / "s.npz", pools)
    read = what_ldr_is.load_pools(tmp_path / "s.npz")
    assert list(read) == list(pools)
    for name, pool in pools.items():
        for field in ("ldr", "entropy", "margin", "wrong"):
            np.testing.assert_array_equal(getattr(read[name], field), getattr(pool, field))
