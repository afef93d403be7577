"""The scores of a pool too large for one sitting: a folder of shards, filled by any processes.

``manifest.json``   "identity": what every shard shares (:mod:`vaal_ext.pool.fingerprint`);
                    "shard_size"; "execution": the batch size and number format settled at the start
``shard_00003.npz`` :class:`~vaal_ext.pool.scores.PoolScores` of samples 3·shard_size to
                    4·shard_size of the pool
``.checksums.json`` the manifest's SHA-256; shards bring checksums of their own
``.lock``, ``.shard_00003.lock``  held while the manifest is made, and by who is at the shard

Every file is replaced by an atomic rename, so a shard is there whole or not at all, and whoever
comes next does what is not there. Locks only save work: where machines share files but not locks,
a shard may be scored twice, and the second, alike to rounding, takes the place of the first. (On a
file system without flock a lock is a marker; what a lost machine left behind is removed by hand.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vaal_ext.checks import require_int
from vaal_ext.files.checksums import read_recorded, write_recorded
from vaal_ext.files.claim import held, make_own
from vaal_ext.files.reading import parse_json
from vaal_ext.pool.batch_run import Mode
from vaal_ext.pool.fingerprint import differences, identity, index_sha256
from vaal_ext.pool.plan import Plan
from vaal_ext.pool.run import Piece, PoolRun
from vaal_ext.pool.scores import PoolScores, joined
from vaal_ext.pool.shard_folder import ShardFolder
from vaal_ext.progress import work_begins

__all__ = [
    "SHARD_SIZE",
    "begun_shard_size",
    "begun_with",
    "each_shard",
    "missing_shards",
    "read_shards",
    "score_shards",
]

# Samples: 3.7 MB a file (and 4 bytes a letter of the longest name, 33 MB for names of up to 63
# letters), seconds of a CPU or a GPU at the least, and a multiple of usual batches.
SHARD_SIZE = 1 << 17

_MANIFEST = "manifest.json"

_ONCE_MORE = "Score once more with the same settings"


def score_shards(
    run: PoolRun, pool: Any, sample_index: Any, path: Path, shard_size: int | None, progress: bool
) -> tuple[int, int, Plan]:
    """Scores what the folder `path` lacks: how many samples that were here, how many are flat, and
    how they were run.

    Of all the processes at the folder the one that takes the first of the shards to be done looks
    at the pool and the network. A `shard_size` of None is that of the folder.

    Raises:
        ValueError: the folder holds other scores (it says in what they differ), or other files; and
            see :meth:`PoolRun.parts`. OSError: it cannot be made or written.
    """
    if shard_size is None:
        shard_size = begun_shard_size(path)
    require_int("shard_size", shard_size, 1)
    mine = identity(run, pool, sample_index)
    index = run.index(pool, sample_index)
    folder = ShardFolder(path, len(index), shard_size)
    plan = _begun(folder, mine, run, pool, index, progress)
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
    """The scores in a folder of shards, all N samples; memory for them and for one shard.

    That is 28 bytes a sample, and where the samples have names 4 bytes more for every letter of the
    longest of them. (The names are there twice for a moment, where a longer one comes.)

    Raises:
        ValueError: shards are missing or damaged. OSError: there is no such folder, or no manifest.
    """
    path = Path(path)
    found = _read_manifest(path / _MANIFEST)
    sha256 = found["identity"]["sample_index"]
    scores = joined(each_shard(path), found["identity"]["num_samples"])
    if sha256 is not None and index_sha256(scores.index) != sha256:
        raise ValueError(
            f"{path} holds shards of other samples than its manifest says. {_ONCE_MORE}"
        )
    return scores


def each_shard(path: Path) -> Iterator[PoolScores]:
    """Yields the scores in a folder of shards, one shard after the other: memory for one.

    Raises:
        ValueError: shards are missing or damaged. OSError: there is no such folder, or no manifest.
    """
    found = _read_manifest(path / _MANIFEST)
    folder = _folder(path, found)
    missing = folder.missing()
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of {folder.num_shards} shards (the first is "
            f"{folder.file(missing[0]).name}): score once more with the same settings"
        )
    index = range(folder.num_samples) if found["identity"]["sample_index"] is None else None
    for number in range(folder.num_shards):
        try:
            scores = folder.load(number, index)
        except ValueError as error:
            raise ValueError(f"{error}. {_ONCE_MORE}") from error
        yield scores


def begun_with(path: Path) -> dict[str, Any]:
    """The identity of the scores that a folder was begun with; {} where none were begun.

    Raises:
        ValueError: its manifest is none. OSError: it cannot be read.
    """
    manifest = path / _MANIFEST
    identity: dict[str, Any] = _read_manifest(manifest)["identity"] if manifest.exists() else {}
    return identity


def begun_shard_size(path: Path) -> int:
    """The samples in a shard of a folder that was begun; `SHARD_SIZE` where none was.

    Errors: see :func:`begun_with`.
    """
    manifest = path / _MANIFEST
    size: int = _read_manifest(manifest)["shard_size"] if manifest.exists() else SHARD_SIZE
    return size


def missing_shards(path: Path) -> int:
    """How many shards a begun folder lacks. Errors: see :func:`read_shards`."""
    return len(_folder(path, _read_manifest(path / _MANIFEST)).missing())


def _folder(path: Path, found: dict[str, Any]) -> ShardFolder:
    return ShardFolder(path, found["identity"]["num_samples"], found["shard_size"])


def _begun(
    folder: ShardFolder,
    mine: dict[str, Any],
    run: PoolRun,
    pool: Any,
    index: np.ndarray | range,
    progress: bool,
) -> Plan:
    """How the shards are scored: as the manifest says, which the first process makes."""
    path = folder.path
    make_own(path, "scores", _MANIFEST)
    manifest = path / _MANIFEST
    if manifest.exists():
        return _taken_up(folder, mine, run, pool, index, progress)
    if progress:
        work_begins()  # the first process may be at its trials
    with held(path / ".lock", timeout=-1):
        if manifest.exists():
            return _taken_up(folder, mine, run, pool, index, progress)
        plan = run.plan(pool, index)
        execution = {"batch_size": plan.batch_size, "mode": asdict(plan.mode)}
        content = {"identity": mine, "shard_size": folder.shard_size, "execution": execution}
        write_recorded(manifest, (json.dumps(content, indent=2) + "\n").encode())
    return plan


def _taken_up(
    folder: ShardFolder,
    mine: dict[str, Any],
    run: PoolRun,
    pool: Any,
    index: np.ndarray | range,
    progress: bool,
) -> Plan:
    """How the shards of a folder that was begun are scored. ValueError: they are others."""
    found = _read_manifest(folder.path / _MANIFEST)
    old = found["identity"] | {"shard_size": found["shard_size"]}
    new = mine | {"shard_size": folder.shard_size}
    if old.get("names") is None or new["names"] is None:  # so it is of an older version
        old, new = old | {"names": None}, new | {"names": None}
    told = differences(old, new)
    if told:
        raise ValueError(f"{folder.path} holds scores of something else: {'; '.join(told)}")
    if progress:
        work_begins()
    size, mode = found["execution"]["batch_size"], Mode(**found["execution"]["mode"])
    # A number given now goes before the one of then: it moves scores by rounding alone.
    if run.batch_size != "auto":
        size = run.batch_size
    elif size is None:  # then a DataLoader made the batches
        size = run.plan(pool, index).batch_size
    return Plan(size, mode, "")


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
