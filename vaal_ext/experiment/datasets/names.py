"""The names by which data sets are called, and a guess at what a wrong name may have meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from vaal_ext.experiment.datasets.images import IMAGE_DATASETS

__all__ = ["DATASET_NAMES", "POOL_NAMES", "TOYS", "path_of", "unknown_name"]

TOYS = ("moons", "circles", "moons-100", "circles-100")
DATASET_NAMES = (*TOYS, "digits", *IMAGE_DATASETS, "npz:PATH", "folder:PATH")
POOL_NAMES = (*DATASET_NAMES, "npy:PATH")


def unknown_name(name: str, names: Sequence[str]) -> ValueError:
    """The error for a name that is none of `names`. It asks whether another name was meant: where
    the kind of a path was left out, or a name is misspelt."""
    kind, _, path = name.partition(":")
    own = _kind_of(Path(os.path.expanduser(name)))
    kinds = [known.partition(":")[0] for known in names]
    meant = ""
    if own in kinds:
        meant = f"{own}:{name}"
    elif near := difflib.get_close_matches(kind.lower(), kinds, n=1):
        meant = next(
            f"{near[0]}:{path or 'PATH'}" if known.endswith(":PATH") else known
            for known in names
            if known.partition(":")[0] == near[0]
        )
    question = f"; did you mean {meant}?" if meant else ""
    return ValueError(f"dataset must be one of {', '.join(names)}, got {name!r}{question}")


def path_of(name: str) -> Path:
    """The path of a name KIND:PATH, ~ being the user's home. ValueError where what is there is of
    another kind."""
    kind, _, text = name.partition(":")
    if not text:
        raise ValueError(f"{name} must be followed by a path, as in {name}PATH")
    path = Path(os.path.expanduser(text))
    there = _kind_of(path)
    if there not in (None, kind) and "folder" in (kind, there):
        what = "folder" if there == "folder" else "file"
        raise ValueError(f"{text} is a {what}, which is given as {there}:{text}, got {name!r}")
    return path


def _kind_of(path: Path) -> str | None:
    """The kind of name, KIND:PATH, by which the file or folder at `path` can be read, if any."""
    if path.is_dir():
        return "folder"
    return {".npz": "npz", ".npy": "npy"}.get(path.suffix.lower()) if path.is_file() else None
