"""The workflows of CI name what is there; wheels are tried by the tests that test_wheel.py runs."""

import re
from pathlib import Path

from test_wheel import SMOKE

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.name: path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")}


def test_what_they_call_is_there():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert len(WORKFLOWS) == 6
    for name, text in WORKFLOWS.items():
        assert set(re.findall(r"run: make (\w+)", text)) <= set(targets), name
        if "-m pytest" in text:  # these bring it
            assert re.search(r"run: make (dev|docs)\b", text), name
        for path in re.findall(r"python_tests[\w/.]*", text):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_every_action_is_pinned_to_a_commit():
    for name, text in WORKFLOWS.items():
        uses = re.findall(r"uses: (\S+)", text)
        assert uses, name
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in uses), name


def test_a_wheel_is_tried_by_the_same_tests_everywhere():
    settings = (ROOT / "pyproject.toml").read_text()
    command = re.search(r'^test-command = """(.*?)"""', settings, re.M | re.S).group(1)
    named = re.findall(r"python_tests/(\S+\.py)", command)
    assert sorted(named) == sorted(SMOKE)
