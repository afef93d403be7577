"""The notebook that the digits' page offers runs as one, and its cells show how far they are."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

# Looked for, not imported: where ipykernel is imported, vaal_ext takes the tests for a notebook.
needs_kernel = pytest.mark.skipif(
    not (find_spec("nbclient") and find_spec("ipykernel")), reason="needs nbclient and ipykernel"
)

EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.mark.slow
@needs_kernel
def test_the_notebook_of_the_digits_shows_finished_bars(built, tmp_path):
    (source,) = built.rglob("01_digits_end_to_end.ipynb")
    done = tmp_path / "done.ipynb"
    subprocess.run([sys.executable, "-c", EXECUTE, source, done], check=True, cwd=tmp_path)
    cells = json.loads(done.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    shown = "".join("".join(output.get("text", "")) for output in outputs)
    for name in ("LDR", "random"):
        assert re.search(rf"{name}: 100%\|.+\| 3/3 ", shown), shown
