"""What the tests of the commands are given."""

from functools import partial

import pytest
from command_line import refuse


@pytest.fixture
def refused(place, capfd):
    """Runs a command that must be refused, see :func:`command_line.refuse`."""
    return partial(refuse, place, capfd)
