"""What the tests of several rooms are given.

One thread for the whole suite: its tensors are small, and idle OpenMP threads that spin slow the
processes beside them. test_ops.py sets the count where it tests threads. Ray reports nothing.
"""

import os

import pytest
import torch
from browser import chromium
from command_line import make_place

torch.set_num_threads(1)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(params=["fused", "reference"])
def backend(request):
    """The kernels, and the same in plain PyTorch."""
    return request.param


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to give commands in, with a network, weights and a pool."""
    return make_place(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def browser():
    """Chromium; where there is none the test is skipped, which says how to get it."""
    with chromium() as opened:
        yield opened
