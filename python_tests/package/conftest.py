"""What the tests of the package share: the pages of the documentation."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from exclusive import exclusive

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("sphinx", "furo", "myst_parser", "sphinx_copybutton", "sphinx_design", "sphinx_gallery")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The folder of the pages, which are built once for all tests and processes of tests."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: pip install 'vaal_ext[docs]' builds the pages")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    out = folder / "docs" / "html"
    with exclusive(folder / "docs.lock"):
        if not out.exists():
            _build(folder / "docs")
    return out


def _build(root):
    """From a copy: the pages that `make docs` made of the tutorials stay as they are."""
    shutil.rmtree(root, ignore_errors=True)  # what a build that failed has left
    root.mkdir()
    generated = {str(ROOT / "docs" / "build"), str(ROOT / "docs" / "source" / "tutorials")}

    def left_out(folder, names):
        return [name for name in names if str(Path(folder) / name) in generated]

    copied = root / "source"
    shutil.copytree(ROOT / "docs", copied / "docs", ignore=left_out)
    only_pages = shutil.ignore_patterns("*.csv", "*.npz", "*.py", "__pycache__")
    shutil.copytree(ROOT / "benchmarks", copied / "benchmarks", ignore=only_pages)
    for name in ("examples", "csrc"):
        shutil.copytree(ROOT / name, copied / name)
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copied / name)
    pages, source = root / "unchecked", copied / "docs" / "source"
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"),
            *("-D", "plot_gallery=0", "-b", "html", str(source), str(pages)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "WARNING" not in done.stderr
    pages.rename(root / "html")
