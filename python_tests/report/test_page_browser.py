"""report.html in a real browser: nothing leaves the file, curves hide and tell, tables sort."""

from __future__ import annotations

import numpy as np
import pytest
from browser import WIDTHS
from made_runs import add_scores, make_run

from vaal_ext.report.write import write_report


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The address of a report of six strategies and settings, with images and scores."""
    pytest.importorskip("plotly")
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("report")
    runs = [
        make_run(root / f"{strategy}{eps}-{seed}", [0.5, end - 0.1, end], strategy=strategy,
                 seed=seed, eps=eps, guesses=True)
        for strategy, eps, end in (
            ("random", 0.1, 0.61), ("entropy", 0.1, 0.72), ("vaal", 0.1, 0.83),
            ("vaal", 0.25, 0.64), ("vaal", 0.5, 0.95), ("margin", 0.1, 0.66),
        )
        for seed in range(2)
    ]  # fmt: skip
    add_scores(root / "vaal0.1-0", np.arange(40, 1000))
    list(write_report(runs, root / "out"))
    return (root / "out" / "report.html").as_uri()


@pytest.fixture
def shown(browser, page):
    """The browser with the page open and its charts drawn."""

    def show(width: int = 1400):
        browser.open(page, width)
        browser.wait_for("return document.documentElement.dataset.drawn === 'yes'")
        return browser

    return show


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_leaves_the_file_and_nothing_is_wrong(shown, page, width):
    browser = shown(width)
    assert browser.requests() == [page]
    assert browser.console() == []
    assert browser.out_of_the_window() == []
    assert browser.mute_pictures() == []
    # Curves, and one histogram; their texts are for who does not see them.
    charts = browser.run(
        "return [...document.querySelectorAll('.chart')].map((e) => [e.ariaLabel, e.innerText])"
    )
    assert len(charts) == 2
    assert all(label.strip() and "labelled samples" in text for label, text in charts[:1])


def test_the_page_may_ask_for_nothing(shown):
    """Not even if something in it tried."""
    browser = shown()
    browser.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x'}))")
    browser.wait_for("return document.images[document.images.length - 1].complete")
    assert any("Content Security Policy" in message for message in browser.console())


VISIBLE = """
return [...document.querySelector('.chart').querySelectorAll('.scatterlayer .trace')]
  .map((trace) => trace.__data__[0].trace.name);
"""


def test_a_click_on_a_name_hides_its_curve(shown):
    browser = shown()
    assert browser.run(VISIBLE).count("entropy") == 1
    index = browser.run(
        "return [...document.querySelectorAll('.legendtext')].map((e) => e.textContent)"
    ).index("entropy")
    browser.click(".legendtoggle", index)
    browser.wait_for(f"return !(() => {{{VISIBLE}}})().includes('entropy')")
    assert "random" in browser.run(VISIBLE)
    browser.click(".legendtoggle", index)
    browser.wait_for(f"return (() => {{{VISIBLE}}})().includes('entropy')")


def test_a_value_stands_beside_the_mouse(shown):
    browser = shown()
    at = browser.run(f"{VISIBLE.strip()[:-1]}.indexOf('random');")
    browser.hover(f".scatterlayer .trace:nth-child({at + 1}) .point", 2)
    browser.wait_for("return document.querySelector('.hoverlayer .hovertext') !== null")
    text = browser.run("return document.querySelector('.hoverlayer .hovertext').textContent")
    assert "random" in text
    assert "40 labels: 61.00 %" in text


def column(browser, number: int) -> list[str]:
    """Of the statistics' first table, the cells from top to bottom."""
    return browser.run(
        "return [...document.querySelector('#part-2 tbody').rows]"
        ".map((row) => row.cells[arguments[0]].textContent)",
        number,
    )


def heads(browser, what: str) -> list[str]:
    return browser.run(
        "return [...document.querySelector('#part-2 thead').rows[0].cells]"
        ".map((cell) => cell[arguments[0]])",
        what,
    )


def test_a_click_on_a_head_sorts_its_table(shown):
    browser = shown()
    head = "#part-2 thead th:nth-child({}) button"

    def areas() -> list[float]:
        return [float(text.split()[0]) for text in column(browser, 1)]

    assert areas() == sorted(areas(), reverse=True)  # the best on top
    browser.click(head.format(2))
    assert areas() == sorted(areas())
    browser.click(head.format(2))
    assert areas() == sorted(areas(), reverse=True)
    browser.click(head.format(1))
    names = column(browser, 0)
    assert names == sorted(names)
    assert names[0] == "entropy"
    assert heads(browser, "ariaSort")[:2] == ["ascending", "none"]
    # What is missing stays at the foot: of random against random there is no difference.
    against = heads(browser, "textContent").index("area − random")
    for _ in range(2):
        browser.click(head.format(against + 1))
        assert column(browser, 0)[-1] == "random"
