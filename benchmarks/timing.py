"""What the benchmarks share: opponents that take turns, quantiles, and a CSV that says where."""

from __future__ import annotations

import csv
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch

from vaal_ext.experiment.provenance import commit, versions
from vaal_ext.files.atomic import write_atomically

SHORTEST_TURN = 2e-4  # seconds: a shorter call is repeated within its turn
FEWEST_TURNS = 5


def turns(names: list[str], count: int) -> Iterator[list[str]]:
    """The order of each of `count` rounds, drawn at random, the same in every call: what one leaves
    to the next (caches that the capture of a graph has emptied, say) falls on all alike."""
    order = random.Random(0)
    for _ in range(count):
        yield order.sample(names, len(names))


def timed(
    contestants: dict[str, Callable[[], object]], seconds: float, device: torch.device
) -> dict[str, np.ndarray]:
    """Seconds per call, one number a turn, of contestants that take turns in one process.

    Two rounds warm up (compilation, caches, the heap); the second of them says how many rounds
    fit into `seconds`, at least 5, and how many calls make a turn of 0.2 ms. On a CUDA device the
    clock is read when the device has finished: for calls of milliseconds, see cuda_timing.py for
    kernels.
    """

    def turn(name: str, calls: int) -> float:
        call = contestants[name]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / calls

    names = list(contestants)
    for order in turns(names, 2):
        single = {name: turn(name, 1) for name in order}
    calls = {name: max(1, round(SHORTEST_TURN / single[name])) for name in names}
    round_trip = sum(single[name] * calls[name] for name in names)
    measured: dict[str, list[float]] = {name: [] for name in names}
    for order in turns(names, max(FEWEST_TURNS, round(seconds / round_trip))):
        for name in order:
            measured[name].append(turn(name, calls[name]))
    return {name: np.array(values) for name, values in measured.items()}


def quantiles(seconds: np.ndarray) -> dict[str, float]:
    """What the CSV says of the turns of one contestant."""
    p20, median, p80 = np.quantile(seconds, [0.2, 0.5, 0.8]).tolist()
    return {"turns": len(seconds), "p20_s": p20, "median_s": median, "p80_s": p80}


def about(device: torch.device) -> dict[str, object]:
    """Where a figure was measured, and with what."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "threads": torch.get_num_threads(),
        **versions(),
        "commit": running_commit(),
    }


@cache
def running_commit() -> str:
    """Of the code that was imported: asked once, for the working tree may move on meanwhile.
    VAAL_COMMIT says it where the files came without git."""
    return commit() or os.environ.get("VAAL_COMMIT", "unknown")


def cpu_name() -> str:
    """The processor's name and the vector instructions that torch found on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = "cpu"
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


class Table:
    """The rows of a benchmark, in a CSV file from the first on: one that is cut short loses none.

    Args:
        path: the file, replaced as a whole whenever there are more rows; None for none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: list[dict[str, object]] = []

    def add(self, rows: list[dict[str, object]]) -> None:
        self._rows += rows
        if self._path is None:
            return
        with write_atomically(self._path, "w") as file:
            writer = csv.DictWriter(file, fieldnames=list(self._rows[0]))
            writer.writeheader()
            writer.writerows(self._rows)
