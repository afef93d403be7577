"""What the tests of the commands share: a folder to work in, arguments, and the refusal."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vaal_ext.cli.app import main

FACTORIES = """
import torch
from torch import nn

def net(hidden=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, hidden), nn.Tanh(), nn.Linear(hidden, 3))

class Wide(nn.Module):  # in float64 another order of its sums is not seen
    def __init__(self):
        super().__init__()
        self.layers = net().double()
    def forward(self, x):
        return self.layers(x.double())
    def load_state_dict(self, state):
        return self.layers.load_state_dict(state)
    def state_dict(self):
        return self.layers.state_dict()

def wide():
    return Wide()

def wider():
    return net(16)

def deeper():
    return net().append(nn.Linear(3, 3))

def shorter():
    return net()[:2]

def number():
    return 3

def needs_argument(width):
    return net(width)

class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = net()
    def forward(self, x):
        return self.layers(x) / (x.flatten(1)[:, :1] > 0)

def nan_where_negative():
    return Broken()
"""

# Where a file cannot be, whoever asks: below a regular file. (Tests may run as root, whom no
# permission stops.)
NOT_A_FOLDER = Path(__file__) / "below"


def make_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to work in, with a module of factories, weights and a pool of 40."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "factories", raising=False)
    (tmp_path / "factories.py").write_text(FACTORIES)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    torch.save(net.state_dict(), "net.pt")
    rng = np.random.default_rng(0)
    np.savez("pool.npz", x=rng.normal(size=(40, 3, 4)).astype(np.float32))
    return tmp_path


def score_arguments(**changes: str) -> list[str]:
    given = {
        "model": "factories:net",
        "weights": "net.pt",
        "data": "npz:pool.npz",
        "out": "scores.npz",
        "eps": "0.5",
        "backend": "reference",
        "device": "cpu",
    } | changes
    return ["score", *(part for key, value in given.items() for part in (f"--{key}", value))]


def run_arguments(**changes: str) -> list[str]:
    given = {
        "dataset": "moons",
        "strategy": "random",
        "rounds": "1",
        "steps": "2",
        "device": "cpu",
        "backend": "reference",
        "out": "run",
    } | changes
    return ["run", *(part for key, value in given.items() for part in (f"--{key}", value))]


def refuse(
    place: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    *,
    begun: bool = False,
) -> str:
    """Runs a command that must be refused: status 2, one line on stderr, no file made or left.

    With `begun` it fails at its work, of which it has spoken before.
    """
    before = files(place)
    capfd.readouterr()
    status = main(arguments)
    stdout, stderr = capfd.readouterr()
    assert status == 2, stderr
    *before_it, line = stderr.splitlines()
    assert bool(before_it) == begun, stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert message in line
    assert files(place) == before, "something was left behind"
    return stderr


def files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if "__pycache__" not in path.parts)
