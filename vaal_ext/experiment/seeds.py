"""Random streams: one seed for a run, an independent stream for each thing it draws.

Because the streams never touch each other, two strategies with one seed start from the same split,
labels and weights, and a round draws the same numbers whether or not the run was interrupted.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["Stream", "seeded", "stream_seed"]


class Stream(enum.IntEnum):
    """What is drawn. The numbers are part of every result: never renumber them."""

    SPLIT = 0
    INITIAL = 1
    WEIGHTS = 2
    LOADER = 3  # the order of the mini-batches, and dropout
    QUERY = 4
    SUBSAMPLE = 5
    VAT = 6  # the batches of the regulariser, and its start directions


def stream_seed(seed: int, stream: Stream, round_number: int = 0) -> int:
    """The seed in [0, 2^63) of one stream in one round of the run with that seed."""
    child = np.random.SeedSequence(seed, spawn_key=(int(stream), round_number))
    return int(child.generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators of the CPU and of ``device`` start from ``seed`` inside the block.

    Afterwards they go on where they were.
    """
    cuda = []
    if device.type == "cuda":
        cuda = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
