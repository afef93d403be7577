"""How `make docs` builds the pages. `sphinx-build -D plot_gallery=0` leaves the tutorials unrun."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE / "_extensions"))
sys.path.insert(0, str(ROOT))

# The networks of the tutorials are too small to share: a second thread costs more than it does.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from docutils import nodes  # noqa: E402

import vaal_ext  # noqa: E402

project = "vaal_ext"
author = "the authors of vaal_ext"
project_copyright = f"{author}, MIT licence"
version = release = vaal_ext.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "command_options",
    "ideas",
    "mathml",
]
exclude_patterns = ["_extensions"]
suppress_warnings = [
    "config.cache",  # the gallery's settings hold a function, which is not kept
    # Of the whole path: a clone may lie below a folder with a space in its name.
    "sphinx_gallery.space_in_filename",
]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"vaal_ext {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_favicon = "_static/icon.svg"
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False
smartquotes_action = "D"  # dashes; a quotation mark is often one of Python here

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# The adapters are documented without the libraries that they are for.
autodoc_mock_imports = ["baal", "ray", "skactiveml", "skorch", "small_text"]

copybutton_exclude = ".linenos, .gp, .go"

sphinx_gallery_conf = {
    "examples_dirs": "../tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"[/\\]\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1,
    "write_computation_times": False,  # a page that asks the network for a script
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
    "abort_on_example_error": False,  # a warning, which `make docs` takes for an error
    "capture_repr": ("_repr_html_", "__repr__"),
}


def _keep_bars(app, what, name, obj, options, lines):
    """|row| is a length in the docstrings; to reStructuredText it would be a substitution."""
    parts = (line.split("``") for line in lines)
    lines[:] = [
        "``".join(part if i % 2 else part.replace("|", r"\|") for i, part in enumerate(line))
        for line in parts
    ]


def _mark_numbers(app, doctree):
    """Tables without prose keep each cell on a line, and scroll where there is no room."""
    for table in doctree.findall(nodes.table):
        if max(len(cell.astext()) for cell in table.findall(nodes.entry)) <= 45:
            table["classes"].append("numbers")


def setup(app):
    app.connect("doctree-read", _mark_numbers)
    app.connect("autodoc-process-docstring", _keep_bars)
