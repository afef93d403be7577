"""The files of a folder of shards (:mod:`vaal_ext.pool.shards`): which are there, which are whole,
and who is at which."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaal_ext.files.atomic import remove_leftovers
from vaal_ext.files.claim import held
from vaal_ext.pool.scores import PoolScores
from vaal_ext.progress import progress_bar

__all__ = ["ShardFolder"]

# Seconds after which nobody writes at a file any more. Where locks are not shared, another process
# may be writing what is already there.
_KILLED_FOR_SURE = 60.0


@dataclass(frozen=True)
class ShardFolder:
    """A folder of shards: `num_samples` samples, `shard_size` in every shard but the last."""

    path: Path
    num_samples: int
    shard_size: int

    @property
    def num_shards(self) -> int:
        """How many shards the pool has; the last may be shorter."""
        return -(-self.num_samples // self.shard_size)

    def file(self, number: int) -> Path:
        """Where a shard's scores lie, or will lie."""
        return self.path / f"shard_{number:05d}.npz"

    def bounds(self, number: int) -> tuple[int, int]:
        """First sample of the shard, and the one after its last."""
        start = number * self.shard_size
        return start, min(start + self.shard_size, self.num_samples)

    def missing(self) -> list[int]:
        """The shards that have no file yet, in order."""
        return [number for number in range(self.num_shards) if not self.file(number).exists()]

    def load(self, number: int, index: np.ndarray | range | None) -> PoolScores:
        """A shard, whole; of the samples `index` int64 [N] of the pool, where they are known.

        Raises:
            ValueError: it is damaged, or holds other samples. OSError: it cannot be read.
        """
        file, (start, stop) = self.file(number), self.bounds(number)
        scores = PoolScores.load(file)
        if isinstance(index, range):
            known = np.array_equal(scores.index, np.arange(start, stop))
        else:
            known = index is None or np.array_equal(scores.index, index[start:stop])
        if scores.num_samples != stop - start or not known:
            raise ValueError(
                f"{file} must hold samples {start} to {stop}, it holds {scores.num_samples} "
                f"from {scores.index[:1]} on"
            )
        return scores

    def drop_damaged(self, index: np.ndarray | range, progress: bool) -> None:
        """Removes the shards that are damaged, to be scored again, and warns of each.

        `index` is int64 [N], the identity of each sample of the pool. Every shard is read, under a
        bar where `progress` says so.
        """
        there = [number for number in range(self.num_shards) if self.file(number).exists()]
        for number in progress_bar(there, show=progress, desc="reading back", unit="shard"):
            file = self.file(number)
            with self._held(number) as mine:
                if not mine:
                    continue
                try:
                    self.load(number, index)
                except ValueError as error:
                    file.unlink()
                    warnings.warn(f"{error}: it is scored again", RuntimeWarning, stacklevel=4)

    def claims(self) -> Iterator[int]:
        """Yields missing shards that no other process is at; each is held until the next is asked
        for, and let go when this process dies."""
        claimed = True
        while claimed:  # once more: another process may have died at its shard
            claimed = False
            for number in self.missing():
                with self._held(number) as mine:
                    if mine and not self.file(number).exists():
                        claimed = True
                        yield number

    def tidy(self) -> None:
        """Removes locks and what kills left behind, once every shard is there."""
        for lock in self.path.glob(".shard_*.lock"):
            lock.unlink(missing_ok=True)
        remove_leftovers(self.path, older_than=_KILLED_FOR_SURE)

    def _held(self, number: int) -> AbstractContextManager[bool]:
        """Whether this process alone is at the shard inside the block."""
        return held(self.path / f".{self.file(number).stem}.lock", timeout=0)
