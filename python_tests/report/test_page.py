"""report.html without a browser: one file that holds what the runs do, or says that it lacks it."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_runs import add_scores, make_run

from vaal_ext.report.page import Page, Section
from vaal_ext.report.write import write_report


class Texts(HTMLParser):
    """What a page shows, and its pictures; not what lies in its scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self._hidden = False
        self.feed(path.read_text(encoding="utf-8"))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self._hidden = tag in ("script", "style")
        if tag == "img":
            self.pictures.append(dict(attrs))

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("runs")
    made = [
        make_run(root / "random", [0.5, 0.6, 0.7]),
        make_run(root / "vaal", [0.5, 0.7, 0.8], strategy="vaal", guesses=True),
    ]
    add_scores(made[1], np.arange(40, 1000))
    return made


def test_the_page_holds_what_the_runs_hold(runs, tmp_path):
    lines = list(write_report(runs, tmp_path))
    assert lines[-1] == f"{tmp_path / 'report.html'}: all of this as a page"
    page = Texts(tmp_path / "report.html")
    for said in (
        "2 strategies on digits, 2 runs",
        "Statistics over 1 seed and 20 to 40 labels.",
        "No intervals: there is one seed.",
        "No scores are kept for random",
        "vaal, seed 0: query 2",
        "The folders do not tell which versions made these runs.",
    ):
        assert said in page.text
    # Ten images of two queries of two strategies; only vaal has guesses, all of them 3.
    texts = [str(picture["alt"]) for picture in page.pictures]
    assert len(texts) == 40
    assert [bool(re.fullmatch(r"sample \d+: label \d", text)) for text in texts[:20]] == [True] * 20
    wrong = [text for text in texts[20:] if "label 3" not in text]
    assert all(text.endswith(", guess 3") for text in texts[20:])
    assert page.text.count("3 → ") == len(wrong) > 0


def test_versions_stand_where_the_folder_tells_them(tmp_path):
    run = make_run(tmp_path / "r0", [0.5, 0.6], dataset="moons")
    config = run / "config.json"
    config.write_text(
        config.read_text()[:-1] + ', "versions": {"torch": "2.14.1"}, "commit": "abc-dirty"}'
    )
    list(write_report([run], tmp_path))
    text = Texts(tmp_path / "report.html").text
    assert "torch 2.14.1 commit abc-dirty" in text
    assert "No images for random: its samples are not images." in text


def test_the_same_report_is_the_same_file(runs, tmp_path):
    for _ in range(2):
        list(write_report(runs, tmp_path))
    before = (tmp_path / "report.html").read_bytes()
    list(write_report(runs, tmp_path))
    assert (tmp_path / "report.html").read_bytes() == before


def test_without_plotly_the_page_has_pictures_and_says_so(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("vaal_ext.report.page.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "plotly", None)  # an import would raise
    lines = list(write_report(runs, tmp_path))
    assert "pip install plotly" in lines[-1]
    page = Texts(tmp_path / "report.html")
    assert "plotly is not installed" in page.text
    first, *_ = page.pictures
    assert str(first["src"]).startswith("data:image/png;base64,")
    assert "vaal 80.0 % at 40 labels" in str(first["alt"])
    assert (tmp_path / "report.html").stat().st_size < 1e6
    assert (tmp_path / "learning_curves.png").exists()


def test_a_page_shows_text_as_it_is(tmp_path):
    section = Section("<title>")
    section.text("a < b & c")
    section.table('"quoted"', [["name", "value"], ["<script>", "&"]])
    section.images([(np.zeros((2, 2)), 'an "image"', "<b>", False)])
    Page("</title>", "<p>", [section]).write(tmp_path / "page.html", "")
    page = Texts(tmp_path / "page.html")
    assert "a < b & c" in page.text
    assert "<script> &" in page.text
    assert page.pictures[0]["alt"] == 'an "image"'
    written = (tmp_path / "page.html").read_text()
    assert "<script>" not in written.partition("<body>")[2].partition("</main>")[0]


def test_large_images_are_made_small(tmp_path):
    section = Section("images")
    noise = np.random.default_rng(0).random((512, 256, 3))
    section.images([(noise, "noise", "", False)])
    # As PNG it would have 393216 bytes and more: noise does not compress.
    assert len(section.parts[0]) < 40_000
