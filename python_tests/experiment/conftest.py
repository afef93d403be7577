"""What the tests of the experiment are given."""

import pytest
from killed_runs import SMALL, small_networks

from vaal_ext.experiment.loop import run


@pytest.fixture(scope="module")
def small_models():
    """Small networks for the toy sets in a whole module."""
    with small_networks():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_models):
    """The folder of a run that nothing has stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(SMALL, out, progress=False)
    return out
