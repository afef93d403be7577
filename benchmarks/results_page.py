"""Redraws the tables of benchmarks/RESULTS.md from the files that `vaal-ext reproduce` wrote.

    python benchmarks/results_page.py

A table stands in RESULTS.md between `<!-- file: PATH -->`, PATH below benchmarks/, and
`<!-- end -->`; of a Markdown file the headings become bold lines, because the page has its own, and
a CSV becomes a table. Nothing else is touched.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from vaal_ext.files.atomic import write_atomically
from vaal_ext.report.wording import markdown

HERE = Path(__file__).resolve().parent
PAGE = HERE / "RESULTS.md"
MARKED = re.compile(r"(<!-- file: (\S+) -->\n).*?(<!-- end -->)", re.S)
HEADING = re.compile(r"^#+ (.*)$", re.M)


def table(path: Path) -> str:
    """The file as Markdown. OSError if there is none."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return HEADING.sub(r"**\1**", text.strip())
    return markdown(list(csv.reader(text.splitlines())))


def redrawn(text: str) -> str:
    """The page with the tables as their files have them now."""
    return MARKED.sub(lambda found: f"{found[1]}{table(HERE / found[2])}\n{found[3]}", text)


if __name__ == "__main__":
    page = redrawn(PAGE.read_text(encoding="utf-8"))
    with write_atomically(PAGE, "w") as file:
        file.write(page)
