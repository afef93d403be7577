"""What the tests of labelling are given."""

import pytest
from labelling_project import go_to_images


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to give commands in, with a folder of images and nothing asked yet."""
    pytest.importorskip("torchvision")
    pytest.importorskip("matplotlib")
    return go_to_images(tmp_path, monkeypatch)
