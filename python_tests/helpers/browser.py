"""A real browser for the tests of pages: Chromium without a window, driven by selenium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

WIDTHS = (400, 1400)  # of a telephone and of a desk's screen, in pixels


class Browser:
    """One window, and what its pages said and asked for since the last one was opened."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def open(self, url: str, width: int = 1400) -> None:
        """Open a page in a window of so many pixels; what others said is forgotten."""
        self.resize(width)
        self.console(), self.requests()
        self.driver.get(url)

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def run(self, script: str, *arguments):
        """What JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str, seconds: float = 20.0) -> None:
        """Until JavaScript returns true. selenium's TimeoutException where it never does."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds).until(lambda _: self.run(script), message=script)

    def _find(self, selector: str, index: int):
        """The n-th element of a CSS selector, moved into sight."""
        element = self.driver.find_elements("css selector", selector)[index]
        self.run("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element)
        return element

    def click(self, selector: str, index: int = 0) -> None:
        self._find(selector, index).click()

    def hover(self, selector: str, index: int = 0) -> None:
        """Lay the mouse on it."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).move_to_element(self._find(selector, index)).perform()

    def console(self) -> list[str]:
        """Warnings and errors since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call; what a page holds itself is none."""
        events = (json.loads(e["message"])["message"] for e in self.driver.get_log("performance"))
        urls = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if urlsplit(url).scheme not in ("data", "blob")]

    def out_of_the_window(self) -> list[str]:
        """What reaches out of the window to the right, and is in no box that scrolls by itself.

        A box with the page's title in it is the page, which must not scroll sideways.
        """
        return self.run(
            """
            const room = document.documentElement.clientWidth;
            function excused(element) {
              for (let box = element; box !== document.body; box = box.parentElement) {
                const style = getComputedStyle(box);
                // A drawer that is shut, or what only a screen reader finds.
                if (style.position === "fixed" || style.clip !== "auto") return true;
                const scrolls = box !== element && /auto|scroll/.test(style.overflowX);
                if (scrolls && !box.querySelector("h1")) return true;
              }
              return false;
            }
            const out = [...document.body.querySelectorAll("*")].filter((element) => {
              const { right, width, height } = element.getBoundingClientRect();
              return width && height && right > room + 1 && !excused(element);
            }).map((element) => "too wide: " + element.outerHTML.slice(0, 120));
            if (document.documentElement.scrollWidth > room) out.push("the page is too wide");
            return out.slice(0, 8);
            """
        )

    def mute_pictures(self) -> list[str]:
        """Pictures without an alternative text."""
        return self.run(
            """
            return [...document.images].filter((image) => !image.hasAttribute("alt"))
              .map((image) => image.outerHTML.slice(0, 120));
            """
        )

    def save_picture(self, path: Path) -> None:
        """The whole page as a PNG, to look at."""
        path.write_bytes(self.driver.get_screenshot_as_png())


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips the test where there is none, saying how to get it."""
    selenium = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install selenium")
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium with its chromedriver: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    # In a container there is no room for the sandbox, nor for /dev/shm.
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING", "performance": "ALL"})
    service = selenium.ChromeService(executable_path=driver)
    window = selenium.Chrome(options=options, service=service)
    try:
        yield Browser(window)
    finally:
        window.quit()
