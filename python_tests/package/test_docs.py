"""The documentation builds without a warning; its links lead somewhere, its pictures have texts.

The tutorials are not run here (`make docs` runs them): without it a build takes seconds.
"""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """What of a page can be wrong: where it leads, where others may lead to, its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.mute: list[str] = []
        self._in_card = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "id" in given:
            self.ids.add(given["id"])
        for name in ("href", "src"):
            if given.get(name):
                self.links.append(given[name])
        # An empty text is right for the thumbnail of a card, whose title stands below it.
        self._in_card |= "sphx-glr-thumbcontainer" in (given.get("class") or "")
        if tag == "img":
            if not (given.get("alt") or "").strip() and not self._in_card:
                self.mute.append(given.get("src") or "")
            self._in_card = False


def test_pages_build_and_lead_somewhere(built):
    pages = {path: Page(path) for path in built.rglob("*.html")}
    names = {str(path.relative_to(built)) for path in pages}
    assert {"index.html", "get_started.html", "reference/python.html"} <= names
    assert sum(name.startswith("tutorials/0") for name in names) >= 2
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            if not target.is_file() or (
                fragment and target in pages and fragment not in pages[target].ids
            ):
                broken.append(f"{path.relative_to(built)} -> {link}")
    assert not broken


def test_no_page_asks_the_network_for_anything(built):
    """But for what a reader clicks on: a page is whole where there is no network."""
    for path in built.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for tag in ("<script", "<link", "<img"):
            for part in text.split(tag)[1:]:
                assert "https://" not in part.partition(">")[0], f"{path}: {tag}{part[:200]}"


def test_pictures_have_texts(built):
    mute = {str(path): Page(path).mute for path in built.rglob("*.html")}
    assert not {name: images for name, images in mute.items() if images}


def test_every_command_and_public_name_has_its_place(built):
    import vaal_ext
    from vaal_ext import ops
    from vaal_ext.cli.app import app

    commands = Page(built / "reference" / "commands.html").ids
    for command in app.registered_commands:
        assert f"vaal-ext-{command.name or command.callback.__name__}" in commands
    python = Page(built / "reference" / "python.html").ids
    names = {name for name in vaal_ext.__all__ if name not in ("__version__", "ops", "reference")}
    assert {f"vaal_ext.{name}" for name in names} <= python
    described = Page(built / "reference" / "ops.html").ids
    assert {f"vaal_ext.ops.{name}" for name in ops.__all__} <= described


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8 * 1024
