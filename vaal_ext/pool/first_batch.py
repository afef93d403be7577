"""A look at a few samples before a pool is scored, to warn of what would go wrong silently.

The looks change no score, no random state and no buffer. At most 64 samples are looked at at a
time, in pieces no larger than the pool's own batches: the first ones show what the network gets and
whether it repeats its logits, and some that are spread over the pool show noise.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaal_ext.checks import warn_caller
from vaal_ext.pool.batch_run import BatchRun
from vaal_ext.pool.batches import spread_batches
from vaal_ext.pool.network_look import SAMPLES, Batch, Lent, look_at_network

__all__ = ["Looks", "WholePool"]

# The kinds of input that have been told of in this process.
_told: set[str] = set()

# The largest byte; and a value that no image in [0, 1] or with unit deviation comes near.
_BYTE, _BEYOND_UNIT_SCALE = 255.0, 128.0


class WholePool(NamedTuple):
    """A pool, the identities of its samples (int64 [N] or a range), and how it is read."""

    pool: Any
    identities: np.ndarray | range
    batch_size: int
    num_workers: int

    def spread(self) -> list[Batch]:
        """Some 64 samples that are spread over the pool, with their identities.

        The first ones would not do: in a folder of images they are of one class. Errors: see
        :func:`spread_batches`.
        """
        found = spread_batches(self.pool, SAMPLES, self.batch_size, self.num_workers)
        if isinstance(self.identities, range):
            return list(found)
        identities = torch.from_numpy(self.identities)
        return [(x, identities[position]) for x, position in found]


class Looks:
    """What one scorer looks at: the first samples of every pool, and once its network."""

    def __init__(self) -> None:
        self._network_seen = False

    def at(
        self,
        run: BatchRun,
        batches: Iterator[Batch],
        index: np.ndarray,
        whole: WholePool,
        lent: Lent,
        tell: bool,
    ) -> Iterator[Batch]:
        """The same batches, once the first samples in them have been looked at.

        Args:
            run: how batches are run, in the network's eval mode.
            batches: samples with their positions in `index`, int64 [N], which has their identities.
            whole: the pool of which these are a part or all, for a look at all of it.
            lent: a context that gives the network back as it came, random states included.
            tell: whether to print what the network gets.

        Raises:
            TypeError, ValueError: see :meth:`BatchRun.check`.
        """
        first, batches = _ahead(batches)
        for x, _ in first:
            run.check(x)
        if first and first[0][0].layout == torch.strided:
            if tell:
                _tell_input(run, first[0][0])
            _look_at_input(run, first[0][0])
        if first and not self._network_seen:
            self._network_seen = True
            keyed = [(x, torch.from_numpy(index[position.numpy()])) for x, position in first]
            spread = whole.spread if len(whole.identities) >= SAMPLES else None
            look_at_network(run, keyed, spread, lent)
        return batches


def _ahead(batches: Iterator[Batch]) -> tuple[list[Batch], Iterator[Batch]]:
    """The first 64 samples, as the batches bring them; and all the batches, from the first on."""
    read: deque[Batch] = deque()
    count = 0
    for batch in batches:
        read.append(batch)
        count += len(batch[0])
        if count >= SAMPLES:
            break
    first, left = [], SAMPLES
    for x, position in read:
        first.append((x[:left], position[:left]))
        left -= len(first[-1][0])

    def from_the_first_on() -> Iterator[Batch]:
        while read:
            yield read.popleft()  # and let it go
        yield from batches

    return first, from_the_first_on()


def _tell_input(run: BatchRun, x: Tensor) -> None:
    """Prints on stderr what the network gets of the samples x [B, ...], one line.

    Shape, dtype, range, mean and deviation; once for samples of one kind (shape, dtype and range to
    a digit), so that the rounds of a loop do not repeat it.
    """
    seen = x.detach().to(run.device)
    if run.pixels is not None:
        seen = run.pixels.input(seen)
    values = seen.double()
    low, high = values.min().item(), values.max().item()
    who = "the network" if run.encode is None else "encode"
    what = f"{who} gets {str(seen.dtype).removeprefix('torch.')} {list(seen.shape[1:])}"
    kind = f"{what}: {low:.0e} to {high:.0e}"
    if kind in _told:
        return
    _told.add(kind)
    deviation = values.std(correction=0).item()
    print(
        f"{what}: {low:.3g} to {high:.3g}, mean {values.mean().item():.3g}, standard deviation "
        f"{deviation:.3g} (the first {len(seen)} samples)",
        file=sys.stderr,
    )


def _look_at_input(run: BatchRun, x: Tensor) -> None:
    """Warns of samples x [B, ...] that look like bytes which nobody has scaled."""
    if run.pixels is not None or run.encode is not None or x.ndim < 3:
        return
    low, high = x.min().item(), x.max().item()
    if low >= 0 and _BEYOND_UNIT_SCALE < high <= _BYTE:
        warn_caller(
            f"the network gets images with values from {low:.3g} to {high:.3g}, as bytes have them:"
            " if it was trained on images in [0, 1], or on normalised ones, its scores are "
            "meaningless. Scale them as it was trained, or keep them as uint8 and pass "
            "normalize=(mean, std)"
        )
