"""What a command does as one of torchrun's processes on a machine with GPUs, told by stand-ins."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from vaal_ext.cli.work import score, torchrun


@pytest.fixture
def current(monkeypatch):
    """The devices that were made current. The process is the second of its machine, of two GPUs."""
    made: list[str] = []
    environment = {"RANK": "5", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "none"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append(str(device)))
    return made


@pytest.mark.parametrize(
    ("asked", "device"), [(None, "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0")]
)
def test_a_rank_has_a_gpu_of_its_own_which_is_the_current_device(current, asked, device):
    assert score._device(asked) == torch.device(device)
    assert current == [device]


def test_on_the_cpu_no_gpu_is_touched(current):
    assert score._device("cpu") == torch.device("cpu")
    assert current == []


def test_without_torchrun_the_current_device_is_the_users(current, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert score._device("cuda") == torch.device("cuda")
    assert current == []


def test_the_ranks_meet_over_gloo_also_on_gpus(current, monkeypatch):
    """NCCL's watchdog would end them all where one has died, before they could say so."""
    log = []
    monkeypatch.setattr(dist, "init_process_group", log.append)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: log.append("destroyed"))
    with torchrun.launched_group():
        assert log == ["gloo"]
    assert log == ["gloo", "destroyed"]
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    with torchrun.launched_group():
        assert len(log) == 2
