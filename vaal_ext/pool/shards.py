"""The scores of a pool too large for one sitting: a folder of shards, filled by any processes.

``manifest.json``   "identity": what all shards have in common, see :mod:`.fingerprint`;
                    "shard_size"; "execution": the batch size and number format of all of them
``shard_00003.npz`` :class:`~vaal_ext.pool.scores.PoolScores` of samples 3·shard_size to
                    4·shard_size of the pool
``.checksums.json`` the manifest's SHA-256; shards bring checksums of their own
``.lock``           locked by the process that makes the manifest
``.shard_00003.lock``  locked by the process that scores that shard

Every file is replaced by an atomic rename: a shard is there whole or not at all, and the next
process scores those that are missing. The locks are there to save work. Where machines share files
but not locks, two processes may score the same shard. Their scores agree to rounding, and the later
file replaces the earlier. (On a file system without flock a lock is a file that is there or not.
One that a crashed machine left behind must be removed by hand.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from vaal_ext.checks import require_int
from vaal_ext.files.claim import held, make_own
from vaal_ext.pool.fingerprint import differences, identity, index_sha256
from vaal_ext.pool.manifest import MANIFEST, Manifest, begun_manifest, read_manifest
from vaal_ext.pool.plan import Plan
from vaal_ext.pool.run import Piece, PoolRun
from vaal_ext.pool.scores import PoolScores, joined
from vaal_ext.pool.shard_folder import ShardFolder
from vaal_ext.progress import work_begins

__all__ = [
    "SHARD_SIZE",
    "each_shard",
    "read_shards",
    "score_shards",
]

# In samples. A file has 3.7 MB, and where samples have names 4 bytes more a sample for each letter
# of the longest (33 MB with 63 letters). Scoring a shard takes a CPU or GPU seconds at the least.
# The usual batch sizes divide the number.
SHARD_SIZE = 1 << 17

_ONCE_MORE = "Score once more with the same settings"


def score_shards(
    run: PoolRun, pool: Any, sample_index: Any, path: Path, shard_size: int | None, progress: bool
) -> tuple[int, int, Plan]:
    """Scores the shards that the folder `path` lacks.

    Of all processes that do so at a time, the one that takes the first missing shard checks the
    pool and the network. A `shard_size` of None is that of the folder.

    Returns:
        how many samples were scored here, on how many of them the gradient was 0, and how they were
        run.

    Raises:
        ValueError: the folder holds other scores (it says in what they differ), or other files; and
            see :meth:`PoolRun.parts`. OSError: it cannot be made or written.
    """
    begun = begun_manifest(path)
    if shard_size is None:
        shard_size = SHARD_SIZE if begun is None else begun.folder.shard_size
    require_int("shard_size", shard_size, 1)
    mine = identity(run, pool, sample_index)
    index = run.index(pool, sample_index)
    folder = ShardFolder(path, len(index), shard_size)
    plan = _plan(folder, begun, mine, run, pool, index, progress)
    folder.drop_damaged(index, progress)
    missing = folder.missing()
    claimed: list[int] = []

    def pieces() -> Iterator[Piece]:
        for number in folder.claims():
            claimed.append(number)
            yield Piece(range(*folder.bounds(number)), look=number == missing[0])

    left = sum(stop - start for start, stop in map(folder.bounds, missing))
    count = flat = 0
    with closing(run.parts(plan, pool, index, pieces(), left, progress)) as parts:
        for part in parts:
            part.scores.save(folder.file(claimed.pop()))
            count, flat = count + part.scores.num_samples, flat + part.failed
    if not folder.missing():
        folder.tidy()
    return count, flat, plan


def read_shards(path: str | Path) -> PoolScores:
    """The scores in a folder of shards, of all N samples.

    They take 28 bytes a sample in memory and, where samples have names, 4 more for each letter of
    the longest name. While they are read there is one shard besides, and for a moment, where a
    shard has longer names than those before, the names a second time.

    Raises:
        ValueError: shards are missing or damaged. OSError: there is no such folder, or no manifest.
    """
    path = Path(path)
    manifest = read_manifest(path)
    sha256 = manifest.identity["sample_index"]
    scores = joined(_each_shard(manifest), manifest.folder.num_samples)
    if sha256 is not None and index_sha256(scores.index) != sha256:
        raise ValueError(
            f"{path} holds shards of other samples than its manifest says. {_ONCE_MORE}"
        )
    return scores


def each_shard(path: Path) -> Iterator[PoolScores]:
    """The scores in a folder of shards, one shard after the other, with one at a time in memory.

    Raises:
        ValueError: shards are missing or damaged. OSError: there is no such folder, or no manifest.
    """
    return _each_shard(read_manifest(path))


def _each_shard(manifest: Manifest) -> Iterator[PoolScores]:
    folder = manifest.folder
    missing = folder.missing()
    if missing:
        raise ValueError(
            f"{folder.path} lacks {len(missing)} of {folder.num_shards} shards (the first is "
            f"{folder.file(missing[0]).name}): score once more with the same settings"
        )
    index = range(folder.num_samples) if manifest.identity["sample_index"] is None else None
    for number in range(folder.num_shards):
        try:
            scores = folder.load(number, index)
        except ValueError as error:
            raise ValueError(f"{error}. {_ONCE_MORE}") from error
        yield scores


def _plan(
    folder: ShardFolder,
    begun: Manifest | None,
    mine: dict[str, Any],
    run: PoolRun,
    pool: Any,
    index: np.ndarray | range,
    progress: bool,
) -> Plan:
    """How the shards are scored. The first process decides it and writes it to the manifest.

    ValueError: the folder holds other scores, or other files.
    """
    make_own(folder.path, "scores", MANIFEST)
    if begun is None:
        if progress:
            work_begins()  # waiting for the lock may take as long as another process's trials
        with held(folder.path / ".lock", timeout=-1):
            begun = begun_manifest(folder.path)
            if begun is None:
                plan = run.plan(pool, index)
                Manifest(folder, mine, plan.batch_size, plan.mode).write()
                return plan
    old = begun.identity | {"shard_size": begun.folder.shard_size}
    new = mine | {"shard_size": folder.shard_size}
    # Older versions did not record names, and where one side has none they are not compared.
    if old.get("names") is None or new["names"] is None:
        old, new = old | {"names": None}, new | {"names": None}
    told = differences(old, new)
    if told:
        raise ValueError(f"{folder.path} holds scores of something else: {'; '.join(told)}")
    if progress:
        work_begins()
    size = begun.batch_size
    # A batch size given now takes the place of the manifest's: it changes scores by rounding alone.
    if run.batch_size != "auto":
        size = run.batch_size
    elif size is None:  # then a DataLoader made the batches
        size = run.plan(pool, index).batch_size
    return Plan(size, begun.mode, "")
