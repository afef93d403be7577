"""`make lint` and the hooks before a commit are the same commands."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_hooks_are_those_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M).group(1)
    commands = re.findall(r"\$\(BIN\)/(.+)", recipe)
    hooks = re.findall(r"entry: \.venv/bin/(.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert commands == hooks
