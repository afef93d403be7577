"""A process that is at a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CODE = (
    "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire();"
    "print('locked', flush=True); sys.stdin.read()"
)


@contextmanager
def locked_elsewhere(folder: Path) -> Iterator[subprocess.Popen]:
    """Another process holds the folder's lock until it is killed, or the block ends."""
    command = [sys.executable, "-c", _CODE, folder / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        yield other
