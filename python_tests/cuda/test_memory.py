"""What a GPU's memory is taken to be, by a torch.cuda that tells numbers of our own."""

from __future__ import annotations

import torch

from vaal_ext.cuda.memory import MemoryGrowth, available_memory

CUDA = torch.device("cuda", 1)


def test_what_torch_holds_unused_is_available(monkeypatch):
    told = {"mem_get_info": (500, 4000), "memory_reserved": 900, "memory_allocated": 200}
    for name, number in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, number=number: number)
    assert available_memory(CUDA) == 500 + 900 - 200


def test_growth_is_the_peak_above_what_was_allocated_at_first(monkeypatch):
    asked, peak = [], 0

    def reset(device):
        nonlocal peak
        asked.append(device)
        peak = 300

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak)
    growth = MemoryGrowth(CUDA)
    assert asked == [CUDA]
    assert growth.peak() == 0
    peak = 450
    assert growth.peak() == 150
