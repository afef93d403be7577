"""Which images lie below a folder: one walk for pools, labelled data and labelling projects."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = ["IMAGE_EXTENSIONS", "FoundImages", "find_images", "is_hidden"]

# A .gif is left out, and named: it may be an animation, of which no frame stands for the others.
IMAGE_EXTENSIONS = (
    ".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip


@dataclass(frozen=True)
class FoundImages:
    """The images below a folder.

    Attributes:
        names: their paths below the folder, with "/", sorted as text.
        folders: the names of the folders that lie directly in it, sorted; hidden ones, and links
            that are not followed, are none of them.
    """

    names: list[str]
    folders: list[str]


def find_images(root: Path) -> FoundImages:
    """All images below `root`, at any depth; one warning counts every file that is left out.

    An image is a file whose extension, in whatever case, is one of :data:`IMAGE_EXTENSIONS`. Hidden
    files and folders, and ``__MACOSX``, hold none: what lies there are copies that other programs
    made. Links are followed, but every folder and every file is met once, under its own name where
    that lies below `root`; a link to a folder that it lies in itself is not followed.

    Raises:
        OSError: there is no such folder, or one below it cannot be read.
    """
    if not root.is_dir():
        kind = NotADirectoryError if root.exists() else FileNotFoundError
        raise kind(f"there is no folder {root}")
    walk = _Walk(root)
    if walk.left_out:
        counts = ", ".join(f"{what} {n}" for what, n in sorted(walk.left_out.items()))
        warnings.warn(
            f"{root}: not read: {counts} (images are {' '.join(IMAGE_EXTENSIONS)})", stacklevel=3
        )
    return FoundImages(sorted(walk.names), sorted(walk.folders))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name holds no samples, whatever its extension."""
    return name.startswith(".") or name == "__MACOSX"


class _Walk:
    """The state of one walk. Links wait until all that has a name of its own has been met."""

    def __init__(self, root: Path) -> None:
        self.names: list[str] = []
        self.folders: list[str] = []
        self.left_out: Counter[str] = Counter()
        self._root = str(root)
        self._real_root = os.path.realpath(root)
        self._walked: set[str] = set()  # real paths of folders
        self._linked_files: set[str] = set()  # real paths of files that links led to
        self._folder_links: list[tuple[str, str]] = []  # the name of each, and its real folder
        self._file_links: list[tuple[str, str]] = []
        self._folder("", self._real_root)
        while self._folder_links:
            links, self._folder_links = sorted(self._folder_links), []
            for name, inside in links:
                self._follow(name, inside)
        for name, _ in sorted(self._file_links):
            self._linked_file(name)

    def _folder(self, name: str, real: str) -> None:
        waiting = [(name, real)]
        while waiting:
            name, real = waiting.pop()
            if real in self._walked:
                self.left_out["links to what is met elsewhere"] += 1
                continue
            self._walked.add(real)
            if name and "/" not in name:
                self.folders.append(name)
            with os.scandir(os.path.join(self._root, name)) as entries:
                for entry in entries:
                    below = f"{name}/{entry.name}" if name else entry.name
                    if is_hidden(entry.name):
                        self._count_hidden(entry)
                    elif entry.is_symlink():
                        kind = self._folder_links if entry.is_dir() else self._file_links
                        kind.append((below, real))
                    elif entry.is_dir():
                        waiting.append((below, os.path.join(real, entry.name)))
                    elif not _is_image(entry.name):
                        self.left_out[_extension(entry.name)] += 1
                    elif entry.is_file():
                        self.names.append(below)
                    else:  # a pipe or a socket: reading it would wait for ever
                        self.left_out["pipes"] += 1

    def _follow(self, name: str, inside: str) -> None:
        real = os.path.realpath(os.path.join(self._root, name))
        if any(os.path.commonpath([real, here]) == real for here in (inside, self._real_root)):
            self.left_out["links to a folder above"] += 1
        else:
            self._folder(name, real)

    def _linked_file(self, name: str) -> None:
        path = os.path.join(self._root, name)
        real = os.path.realpath(path)
        if not _is_image(name):
            self.left_out[_extension(name)] += 1
        elif not os.path.exists(path):  # it leads nowhere: an image that cannot be read
            self.names.append(name)
        elif not os.path.isfile(path):
            self.left_out["pipes"] += 1
        elif real in self._linked_files or (
            os.path.dirname(real) in self._walked
            and _is_image(os.path.basename(real))
            and not is_hidden(os.path.basename(real))
        ):
            self.left_out["links to what is met elsewhere"] += 1
        else:
            self._linked_files.add(real)
            self.names.append(name)

    def _count_hidden(self, entry: os.DirEntry[str]) -> None:
        if entry.is_dir():
            self.left_out["hidden folders"] += 1
        elif _is_image(entry.name):
            self.left_out["hidden images"] += 1


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_EXTENSIONS)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without extension"
