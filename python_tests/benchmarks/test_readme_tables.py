"""The tables of README and documentation are what the committed CSV files say, losses included."""

from __future__ import annotations

from pathlib import Path

import pytest
import readme

RESULTS = readme.ROOT / "benchmarks" / "results"


def test_the_readme_is_what_the_results_say():
    texts = {page: page.read_text(encoding="utf-8") for page in readme.PAGES}
    drawn = readme.tables(RESULTS) | readme.comparisons() | readme.machine_code()
    assert readme.redrawn(texts, drawn) == texts, "type: python benchmarks/readme.py"
    for name, table in drawn.items():
        assert any(table in text for text in texts.values()), name


def row(**facts: object) -> readme.Row:
    given = {"op": "perturb", "shape": "5x3", "dtype": "float32", "threads": 1, "opponent": "eager"}
    return {key: str(value) for key, value in (given | facts).items()}


def test_losses_are_printed_like_wins():
    rows = [
        row(opponent="vaal_ext", ratio_to_ours=1),
        row(ratio_to_ours=23.4),
        row(ratio_to_ours=0.871, threads=2),
        row(opponent="clone", ratio_to_ours=0.2),
        row(opponent="copy", ratio_to_ours=0.1),
    ]
    table = readme.speed(rows, ["perturb"]).splitlines()
    assert table[0] == "| op | dtype | against | (5, 3) |"
    assert table[2:] == [
        "| `perturb` | float32 | eager | 23 / 0.87 |",
        "| `perturb` | float32 | copy | 0.10 |",
    ]
    assert readme.losses(rows) == (
        "Of 2 comparisons 1 are lost:\n\n"
        "- `perturb`, float32, against eager: 0.87 at (5, 3) with 2 threads"
    )
    assert readme.losses(rows[:2]) == "Of 1 comparisons 0 are lost."


def test_a_ratio_just_below_one_does_not_become_one():
    assert [readme.ratio(text) for text in ("0.9951", "0.994", "1.04", "9.94", "9.96")] == [
        "0.99",
        "0.99",
        "1.0",
        "9.9",
        "10",
    ]


def test_errors_have_two_digits():
    numbers = ("1.04e-07", "0.0531", "1.0", "22.4", "2300", "4e8", "1e-06")
    assert [readme.error(text) for text in numbers] == [
        "1.0e-7",
        "0.053",
        "1.0",
        "22",
        "2.3e3",
        "4.0e8",
        "1.0e-6",
    ]


def test_tables_and_their_places_belong_together():
    place = "<!-- table: a -->\nold\n<!-- end -->"
    page = Path("page.md")
    assert readme.redrawn({page: f"x\n{place}\ny"}, {"a": "new"}) == {
        page: "x\n<!-- table: a -->\nnew\n<!-- end -->\ny"
    }
    for drawn in ({}, {"b": "new"}, {"a": "new", "b": "new"}):
        with pytest.raises(ValueError, match="the pages have places for"):
            readme.redrawn({page: place}, drawn)
