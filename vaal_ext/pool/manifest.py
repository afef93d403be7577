"""``manifest.json``, the first file of a folder of shards: what its shards share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaal_ext.checks import require_int
from vaal_ext.files.checksums import read_recorded, write_recorded
from vaal_ext.files.reading import parse_json
from vaal_ext.pool.batch_run import Mode
from vaal_ext.pool.shard_folder import ShardFolder

__all__ = ["MANIFEST", "Manifest", "begun_manifest", "read_manifest"]

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What the shards of a folder share.

    Attributes:
        folder: where they lie, how many samples they hold and how many a shard has.
        identity: of the scores, see :mod:`vaal_ext.pool.fingerprint`.
        batch_size: settled when they were begun; None where a DataLoader made the batches.
        mode: the number format, settled then too.
    """

    folder: ShardFolder
    identity: dict[str, Any]
    batch_size: int | None
    mode: Mode

    def write(self) -> None:
        """Replaces the file, whole or not at all. OSError where it cannot be written."""
        execution = {"batch_size": self.batch_size, "mode": asdict(self.mode)}
        shared = {"identity": self.identity, "shard_size": self.folder.shard_size}
        text = json.dumps({**shared, "execution": execution}, indent=2)
        write_recorded(self.folder.path / MANIFEST, f"{text}\n".encode())


def begun_manifest(path: Path) -> Manifest | None:
    """The manifest of a folder of shards; None where none were begun. Errors: as below."""
    return read_manifest(path) if (path / MANIFEST).exists() else None


def read_manifest(path: Path) -> Manifest:
    """The manifest of a folder of shards.

    Raises:
        ValueError: it is damaged, or no manifest. OSError: it cannot be read, or is not there.
    """
    file = path / MANIFEST
    text = read_recorded(file, "put back a copy of it, or name a new folder")
    try:
        found = parse_json(text)
        identity, execution = found["identity"], found["execution"]
        sizes = identity["num_samples"], found["shard_size"]
        identity["sample_index"]
        if not all(isinstance(size, int) for size in sizes) or sizes[0] < 0 or sizes[1] < 1:
            raise ValueError(f"sizes {sizes}")
        require_int("batch_size", execution["batch_size"] or 1, 1)
        folder, mode = ShardFolder(path, *sizes), Mode(**execution["mode"])
        return Manifest(folder, identity, execution["batch_size"], mode)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no manifest of scores: {error}") from error
