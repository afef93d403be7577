"""The README's example runs as it stands, and what it names exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import vaal_ext

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_first_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(example.strip().splitlines()) <= 12
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")


def test_pictures_and_files_exist():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
    for script in re.findall(r"python (benchmarks/\S+\.py)", README):
        assert (ROOT / script).exists(), script


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_commands_exist():
    commands = set(re.findall(r"vaal-ext (\w+)", README))
    assert {"score", "select", "run", "report", "info"} <= commands
    done = subprocess.run(
        [sys.executable, "-m", "vaal_ext", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    for command in commands:
        assert re.search(rf"\b{command}\b", done.stdout), command


def test_public_names_exist():
    for name in vaal_ext.__all__:
        assert getattr(vaal_ext, name) is not None
