"""The page of a project: what it says, what it must not say, and that a browser shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import WIDTHS
from labelling_project import asked, begin, fill_in, step, truth, write_answers, write_images

PAGE = Path("project/report.html")


def pictures() -> dict[str, str]:
    """Of the images shown, what their alternative texts say of each."""
    texts = re.findall(r'<img[^>]* alt="([^"]*)"', PAGE.read_text(encoding="utf-8"))
    return dict(text.split(": ", 1) for text in texts)


def test_an_image_without_an_answer_shows_no_guess(place, capsys):
    assert begin() == 0
    assert f"{PAGE}: how far the project is, as a page" in capsys.readouterr().out
    assert pictures() == dict.fromkeys(asked(1), "no label yet")
    assert "No network is trained yet." in PAGE.read_text()
    assert PAGE.stat().st_size < 1e5  # nothing to draw: no plotly
    step("label", fill_in(1))
    step("train")
    step("query")
    shown = pictures()
    assert {shown[image] for image in asked(2)} == {"no label yet"}
    assert {shown[image] for image in asked(1)} == {f"label {truth(i)}" for i in asked(1)}
    step("label", fill_in(2))
    step("train")
    assert all(
        re.fullmatch(f"label {truth(image)}, guess (dark|light)", pictures()[image])
        for image in asked(2)
    )
    assert "there is no histogram" in PAGE.read_text()


def test_an_image_that_cannot_be_read_stops_no_training(place):
    """One without an answer, which no training needs."""
    assert begin() == 0
    first = asked(1)
    (Path("images") / first[0]).write_bytes(b"no image any more")
    step("label", write_answers("some.csv", [(image, truth(image)) for image in first[1:]]))
    step("train")
    assert set(pictures()) == set(first[1:])
    assert "1 image of query 1 cannot be read any more." in PAGE.read_text()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_the_page_of_a_project(place, browser, width):
    pytest.importorskip("plotly")
    # Enough to evaluate on for a curve.
    write_images(Path("test"), [f"{truth(f'{i}.jpg')}/{i}.jpg" for i in range(12)])
    assert begin(test="folder:test") == 0
    for number in (1, 2):
        step("label", fill_in(number))
        step("train")
        step("query")
    browser.open(PAGE.resolve().as_uri(), width)
    browser.wait_for("return document.documentElement.dataset.drawn === 'yes'")
    assert browser.requests() == [PAGE.resolve().as_uri()]
    assert browser.console() == []
    assert browser.out_of_the_window() == []
    assert browser.mute_pictures() == []
    browser.hover(".scatterlayer .point", 0)
    browser.wait_for("return document.querySelector('.hoverlayer .hovertext') !== null")
    text = browser.run("return document.querySelector('.hoverlayer .hovertext').textContent")
    assert text.startswith("training 1")
