"""What the tests of the CUDA kernels are given."""

import pytest
from emulation.harness import fresh_emulation


@pytest.fixture
def emulation():
    """The kernels on the CPU, with nothing counted yet."""
    return fresh_emulation()
