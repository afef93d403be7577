"""The built pages in a real browser: no errors, nothing cut off, and the search finds.

They are served as a web server would: the search reads pages, which it may not from a folder.
"""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import WIDTHS


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing: the requests are no news."""


@pytest.fixture(scope="module")
def site(built):
    """The address of the pages, on this machine alone."""
    handler = functools.partial(Quiet, directory=str(built))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_every_page_is_right_at_both_widths(browser, built, site):
    pages = sorted(path.relative_to(built).as_posix() for path in built.rglob("*.html"))
    assert "get_started.html" in pages
    wrong = {}
    for page in pages:
        browser.open(site + page, WIDTHS[0])
        found = browser.out_of_the_window()
        browser.resize(WIDTHS[1])
        found += browser.out_of_the_window()
        found += browser.console() + browser.mute_pictures()
        found += [url for url in browser.requests() if not url.startswith(site)]
        # A picture that did not come would have no size.
        found += browser.run(
            "return [...document.images].filter((i) => i.complete && !i.naturalWidth && "
            "i.loading !== 'lazy').map((i) => i.src)"
        )
        if found:
            wrong[page] = found
    assert not wrong


@pytest.mark.parametrize("width", WIDTHS)
def test_the_search_finds_select(browser, site, width):
    browser.open(f"{site}search.html?q=select", width)
    browser.wait_for("return document.querySelectorAll('#search-results li a').length > 1")
    found = browser.run(
        "return [...document.querySelectorAll('#search-results li a')].map((link) => link.href)"
    )
    assert any("reference/python.html#vaal_ext.select" in link for link in found)
    browser.wait_for("return /found \\d+ pages/.test(document.body.innerText)")
    assert browser.console() == []


def test_a_picture_can_be_read_on_a_telephone(browser, site):
    """It is not shrunk to the window but scrolls in a box of its own."""
    browser.open(f"{site}how_it_works.html", WIDTHS[0])
    widths = browser.run(
        "return [...document.querySelectorAll('article img')].map((image) => image.clientWidth)"
    )
    assert widths
    assert min(widths) >= 500
    assert browser.out_of_the_window() == []
