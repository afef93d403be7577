"""What the benchmarks share: opponents that take turns, quantiles, and a CSV that says where."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vaal_ext.atomic import write_atomically
from vaal_ext.provenance import commit

Contestants = dict[str, Callable[[], object]]


def timed(contestants: Contestants, repeats: int, device: torch.device) -> dict[str, np.ndarray]:
    """Seconds [repeats] of each, taking turns in an order that rotates. The first two rounds warm
    up (compilation, caches, the heap) and do not count."""
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(-2, repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            contestants[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def about(device: torch.device) -> dict[str, object]:
    """Where a figure was measured."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit() or "unknown",
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "cpu"


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with write_atomically(path, "w") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path}")
