"""What a command does where torchrun has started it in several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

__all__ = ["launched", "launched_group", "local_rank", "rank"]


def launched() -> bool:
    """Whether this process is one of torchrun's."""
    return dist.is_available() and dist.is_torchelastic_launched()


def rank() -> int:
    """This process among all of the job; 0 where there is no job."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """This process among those of the machine: the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


@contextmanager
def launched_group() -> Iterator[None]:
    """The default process group is that of torchrun's job inside the block, if there is one.

    Of gloo, on GPUs too: what the processes exchange are scores, which lie in the host's memory,
    and gloo tells at once where a process has died, NCCL after its timeout.
    """
    if not launched():
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
