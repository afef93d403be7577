"""benchmarks/RESULTS.md says what the committed files of `vaal-ext reproduce` say."""

from __future__ import annotations

import results_page


def test_the_page_is_what_the_results_say():
    text = results_page.PAGE.read_text(encoding="utf-8")
    assert results_page.MARKED.search(text)
    assert results_page.redrawn(text) == text, "type: python benchmarks/results_page.py"


def test_a_csv_becomes_a_table(tmp_path):
    path = tmp_path / "numbers.csv"
    path.write_text("variant,val\nvaal,89.10\nrandom,\n")
    assert results_page.table(path) == (
        "| variant | val |\n| --- | --- |\n| vaal | 89.10 |\n| random |  |"
    )


def test_a_heading_of_a_file_is_none_of_the_page(tmp_path):
    path = tmp_path / "statistics.md"
    path.write_text("# mnist\n\nStatistics over 3 seeds.\n")
    assert results_page.table(path) == "**mnist**\n\nStatistics over 3 seeds."
