"""What the tests of the benchmarks are given."""

import pytest
import torch


@pytest.fixture
def threads():
    """Puts back the number of threads, which the benchmarks set."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
