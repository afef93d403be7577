"""Seconds per call of kernels on a CUDA device.

A call is made on many copies of its inputs in turn, so that together they exceed the L2 cache four
times over and no call finds what the one before it left there. The clock is a pair of CUDA events
around all of them; the host waits for the device only at the end. Two ways to launch:

    graph   all the calls are captured in one CUDA graph: what the device needs
    stream  Python makes the calls one after another: the launches count too
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from timing import FEWEST_TURNS, turns
from torch import Tensor

CACHES = 4  # times the L2 cache
MOST_COPIES = 1000  # of tiny inputs, which no rotation can keep out of the cache

Call = Callable[..., object]


def timed(
    contestants: dict[str, Call],
    inputs: tuple[Tensor, ...],
    seconds: float,
    device: torch.device,
    launch: str,
) -> dict[str, np.ndarray]:
    """Seconds per call, one number a turn, of contestants that take turns.

    Args:
        contestants: name -> function of the inputs. For launch="graph" it must not wait for the
            device.
        seconds: time to spend; at least 5 turns are measured.
        launch: "graph" or "stream".
    """
    with torch.cuda.device(device):
        copies = _rotated(inputs, device)
        way = {"graph": _captured, "stream": _launched}[launch]
        runs = {name: way(call, copies) for name, call in contestants.items()}
        warm = _round_trips(runs, 2)
        round_trip = sum(values[1] for values in warm.values())
        found = _round_trips(runs, max(FEWEST_TURNS, round(seconds / round_trip)))
    return {name: np.array(values) / len(copies) for name, values in found.items()}


def _rotated(inputs: tuple[Tensor, ...], device: torch.device) -> list[tuple[Tensor, ...]]:
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    size = sum(tensor.nbytes for tensor in inputs)
    count = min(max(1, math.ceil(CACHES * cache / size)), MOST_COPIES)
    return [tuple(tensor.clone() for tensor in inputs) for _ in range(count)]


def _launched(call: Call, copies: list[tuple[Tensor, ...]]) -> Callable[[], object]:
    def run() -> None:
        # The results live until the turn ends: each call writes to memory of its own.
        _ = [call(*inputs) for inputs in copies]

    return run


def _captured(call: Call, copies: list[tuple[Tensor, ...]]) -> Callable[[], object]:
    # Compilation and library handles come before the capture, on another stream, as torch's
    # documentation of CUDA graphs asks.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call(*copies[0])
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run = _launched(call, copies)
        run()
    return partial(_replay, graph, copies)


def _replay(graph: torch.cuda.CUDAGraph, copies: list[tuple[Tensor, ...]]) -> None:
    # `copies` is bound here because the graph holds their addresses only.
    graph.replay()


def _round_trips(runs: dict[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Seconds of every turn by the device's clock."""
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in runs}
    for order in turns(list(runs), count):
        for name in order:
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            runs[name]()
            stop.record()
            events[name].append((start, stop))
    torch.cuda.synchronize()
    return {
        name: [start.elapsed_time(stop) / 1e3 for start, stop in pairs]
        for name, pairs in events.items()
    }
