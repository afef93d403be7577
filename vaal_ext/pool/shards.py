"""The scores of a pool too large for one sitting: a folder of shards, filled by any processes.

``manifest.json``   "identity": what every shard shares (:mod:`vaal_ext.pool.identity`);
                    "shard_size"; "execution": the batch size and number format settled at the start
``shard_00003.npz`` :class:`~vaal_ext.pool.scores.PoolScores` of samples 3·shard_size to
                    4·shard_size of the pool
``.checksums.json`` the manifest's SHA-256, see :mod:`vaal_ext.checksums`; shards bring their own
``.lock``, ``.shard_00003.lock``  held while the manifest is made, and by who is at the shard

Every file is replaced by an atomic rename, so a shard is there whole or not at all, and whoever
comes next does what is not there. Locks only save work: where machines share files but not locks,
a shard may be scored twice, and the second, alike to rounding, takes the place of the first. (On a
file system without flock a lock is a marker; what a lost machine left behind is removed by hand.)
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaal_ext.atomic import remove_leftovers
from vaal_ext.checks import require_int
from vaal_ext.checksums import read_recorded, write_recorded
from vaal_ext.locked import foreign_file, held
from vaal_ext.pool.execution import Execution
from vaal_ext.pool.identity import differences, identity, index_sha256
from vaal_ext.pool.scores import PoolScores, joined
from vaal_ext.pool.scoring import PoolRun
from vaal_ext.pool.trial import Mode
from vaal_ext.reading import parse_json

__all__ = [
    "SHARD_SIZE",
    "ShardFolder",
    "begun_with",
    "missing_shards",
    "read_shards",
    "score_shards",
]

# Samples: 3.7 MB a file, seconds of a CPU or a GPU at the least, and a multiple of usual batches.
SHARD_SIZE = 1 << 17

_MANIFEST = "manifest.json"

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

    def drop_damaged(self, index: np.ndarray | range) -> None:
        """Removes the shards that are damaged, to be scored again, and warns of each.

        `index` is int64 [N], the identity of each sample of the pool.
        """
        for number in range(self.num_shards):
            file = self.file(number)
            if not file.exists():
                continue
            with held(self.path / f".{file.stem}.lock", timeout=0) as mine:
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
                with held(self.path / f".{self.file(number).stem}.lock", timeout=0) as mine:
                    if mine and not self.file(number).exists():
                        claimed = True
                        yield number

    def tidy(self) -> None:
        """Removes locks and what kills left behind, once every shard is there."""
        for lock in self.path.glob(".shard_*.lock"):
            lock.unlink(missing_ok=True)
        remove_leftovers(self.path, older_than=_KILLED_FOR_SURE)


def score_shards(
    run: PoolRun, pool: Any, sample_index: Any, path: Path, shard_size: int, progress: bool
) -> tuple[int, int]:
    """Scores what the folder `path` lacks; how many samples that were here, and how many are flat.

    Raises:
        ValueError: the folder holds other scores (it says in what they differ), or other files; and
            see :meth:`PoolRun.parts`. OSError: it cannot be made or written.
    """
    require_int("shard_size", shard_size, 1)
    mine = identity(run, pool, sample_index)
    index = run.index(pool, sample_index)
    folder = ShardFolder(path, len(index), shard_size)
    run.chosen = _begun(folder, mine, run, pool, index)
    folder.drop_damaged(index)
    claimed: list[int] = []

    def bounds() -> Iterator[tuple[int, int]]:
        for number in folder.claims():
            claimed.append(number)
            yield folder.bounds(number)

    left = sum(stop - start for start, stop in map(folder.bounds, folder.missing()))
    count = flat = 0
    with closing(run.parts(pool, index, bounds(), left, progress)) as parts:
        for scores, flat_here in parts:
            scores.save(folder.file(claimed.pop()))
            count, flat = count + scores.num_samples, flat + flat_here
    if not folder.missing():
        folder.tidy()
    return count, flat


def read_shards(path: str | Path) -> PoolScores:
    """The scores in a folder of shards, all N samples; memory for them and for one shard.

    Raises:
        ValueError: shards are missing or damaged. OSError: there is no such folder, or no manifest.
    """
    path = Path(path)
    found = _read_manifest(path / _MANIFEST)
    folder = _folder(path, found)
    missing = folder.missing()
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of {folder.num_shards} shards (the first is "
            f"{folder.file(missing[0]).name}): score once more with the same settings"
        )

    sha256 = found["identity"]["sample_index"]
    index = range(folder.num_samples) if sha256 is None else None
    try:
        shards = (folder.load(number, index) for number in range(folder.num_shards))
        scores = joined(shards, folder.num_samples)
        if sha256 is not None and index_sha256(scores.index) != sha256:
            raise ValueError(f"{path} holds shards of other samples than its manifest says")
    except ValueError as error:
        raise ValueError(f"{error}. Score once more with the same settings") from error
    return scores


def begun_with(path: Path) -> dict[str, Any]:
    """The identity of the scores that a folder was begun with; {} where none were begun.

    Raises:
        ValueError: its manifest is none. OSError: it cannot be read.
    """
    manifest = path / _MANIFEST
    identity: dict[str, Any] = _read_manifest(manifest)["identity"] if manifest.exists() else {}
    return identity


def missing_shards(path: Path) -> int:
    """How many shards a begun folder lacks. Errors: see :func:`read_shards`."""
    return len(_folder(path, _read_manifest(path / _MANIFEST)).missing())


def _folder(path: Path, found: dict[str, Any]) -> ShardFolder:
    return ShardFolder(path, found["identity"]["num_samples"], found["shard_size"])


def _begun(
    folder: ShardFolder, mine: dict[str, Any], run: PoolRun, pool: Any, index: np.ndarray | range
) -> Execution:
    """How the shards are scored: as the manifest says, which the first process makes."""
    path = folder.path
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is no folder")
    path.mkdir(parents=True, exist_ok=True)
    manifest = path / _MANIFEST
    other = foreign_file(path, _MANIFEST)
    if other is not None:
        raise ValueError(f"{path} holds no scores but is not empty ({other}): name a new folder")
    with held(path / ".lock", timeout=-1):
        if manifest.exists():
            found = _read_manifest(manifest)
            old = found["identity"] | {"shard_size": found["shard_size"]}
            told = differences(old, mine | {"shard_size": folder.shard_size})
            if told:
                raise ValueError(f"{path} holds scores of something else: {'; '.join(told)}")
            size, mode = found["execution"]["batch_size"], Mode(**found["execution"]["mode"])
            # A number given now goes before the one of then: it moves scores by rounding alone.
            if run.batch_size != "auto":
                size = run.batch_size
            elif size is None:  # then a DataLoader made the batches
                size = run.choose(pool, index).batch_size
            return Execution(size, mode, "")
        chosen = run.choose(pool, index)
        execution = {"batch_size": chosen.batch_size, "mode": asdict(chosen.mode)}
        content = {"identity": mine, "shard_size": folder.shard_size, "execution": execution}
        write_recorded(manifest, (json.dumps(content, indent=2) + "\n").encode())
    return chosen


def _read_manifest(path: Path) -> dict[str, Any]:
    """ "identity", "shard_size" and "execution", with what every reader needs of them."""
    text = read_recorded(path, "put back a copy of it, or name a new folder")
    try:
        found: dict[str, Any] = parse_json(text)
        sizes = found["identity"]["num_samples"], found["shard_size"]
        found["identity"]["sample_index"]
        if not all(isinstance(size, int) for size in sizes) or sizes[0] < 0 or sizes[1] < 1:
            raise ValueError(f"sizes {sizes}")
        Mode(**found["execution"]["mode"])
        require_int("batch_size", found["execution"]["batch_size"] or 1, 1)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest of scores: {error}") from error
    return found
