"""A record of the SHA-256 of a folder's files, by which damage and edits are noticed when they are
read.

The record is ``.checksums.json``. Its "files" has a list for every recorded file: the digest of its
content, and after it the digest of the content before, or "absent" where there was no file. The
record is written first and the file second, so a process that is killed in between leaves the old
content beside the new record; the second digest accepts it. "sha256" is a digest of all of "files",
by which damage to the record itself is noticed.

A file that the record does not name, as in a folder of an earlier version, is read unchecked. Only
the process that holds the folder's lock may write.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vaal_ext.files.atomic import write_atomically
from vaal_ext.files.reading import parse_json

__all__ = ["is_edited", "is_lost", "read_recorded", "recorded", "write_recorded"]

_RECORD = ".checksums.json"
_ABSENT = "absent"

# How often a file is read that does not fit its record: a writer may have replaced both between
# the reading of the one and of the other.
_TRIES = 3


def write_recorded(path: Path, content: bytes) -> None:
    """Records the digest of `content`, then replaces the file by it, whole or not at all.

    Nothing is written where the record and the file are so already.

    Raises:
        ValueError: the record is damaged. OSError: it cannot be written; it names the file.
    """
    digests = _read_record(path.parent)
    known, before = digests.get(path.name), _digest_of(path)
    mine = hashlib.sha256(content).hexdigest()
    if before == mine and known is not None and known[:1] == [mine]:
        return
    if before is None:
        kept = [_ABSENT] if known is None or _ABSENT in known else []
    else:
        kept = [before] if known is None or before in known else []
    digests |= {path.name: list(dict.fromkeys([mine, *kept]))}
    with write_atomically(path.parent / _RECORD, "w") as file:
        json.dump({"files": digests, "sha256": _digest_of_all(digests)}, file, indent=2)
        file.write("\n")
    with write_atomically(path) as file:
        file.write(content)


def read_recorded(path: Path, mend: str = "put back a copy of it") -> str:
    """The text of the file, UTF-8, checked against the record if that names the file.

    Args:
        path: the file.
        mend: what the message tells the user to do about a damaged file.

    Raises:
        ValueError: the file does not fit the record, is no UTF-8, or the record is damaged.
        OSError: it cannot be read.
    """
    for attempt in range(_TRIES):
        known = _read_record(path.parent).get(path.name)
        content = path.read_bytes()
        if known is None or hashlib.sha256(content).hexdigest() in known:
            break
        if attempt == _TRIES - 1:
            raise ValueError(
                f"{path} is damaged or was edited, it is not what was written: {mend}; or, if the "
                f"change is meant, delete {path.parent / _RECORD}"
            )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged, {error}: {mend}") from None


def is_lost(path: Path) -> bool:
    """Whether a file that was written has gone since.

    False also for one that was written only once: a process that was killed before it wrote the
    file for the first time leaves the same record.
    """
    known = _read_record(path.parent).get(path.name)
    return known is not None and _ABSENT not in known and not path.exists()


def is_edited(path: Path) -> bool:
    """Whether the file is there and does not fit the record; False where that does not name it."""
    known, now = _read_record(path.parent).get(path.name), _digest_of(path)
    return known is not None and now is not None and now not in known


def recorded(path: Path, content: bytes) -> bool:
    """Whether `content` is, by the record, what was written to the file last."""
    known = _read_record(path.parent).get(path.name, [])
    return known[:1] == [hashlib.sha256(content).hexdigest()]


def _digest_of(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _digest_of_all(digests: dict[str, list[str]]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _read_record(folder: Path) -> dict[str, list[str]]:
    path = folder / _RECORD
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        digests: dict[str, list[str]] = record["files"]
        if record["sha256"] != _digest_of_all(digests):
            raise ValueError("it is not what was written")
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, {error}: delete it, and the files are read as they are"
        ) from None
    return digests
