"""Names as people and their programs write them, held against the names that are there."""

from __future__ import annotations

import difflib
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

__all__ = ["Names"]


class Names:
    """Names of images or of classes, found by what somebody wrote.

    A name is found as it is written. Where none is the same, it is the only one that differs in
    nothing but the encoding of accented letters (a Mac writes é as e and an accent, Unicode's NFD;
    most programs compose it, NFC), or else in that and in blanks around it. Where two would do,
    none is found: nothing is guessed.

    Args:
        names: the names that are there; a name given twice counts once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)
        self._alike: dict[Callable[[str], str], dict[str, list[str]]] = {}

    def find(self, written: str) -> str | None:
        """The name that `written` stands for; None where there is none, or more than one."""
        if written in self._names:
            return written
        for key in (_composed, _stripped):
            alike = self._with(key, written)
            if alike:
                return alike[0] if len(alike) == 1 else None
        return None

    def suggestion(self, written: str) -> str:
        """What may have been meant by a name that is not found; "" where nothing suggests itself.

        These are the names, at most three, that differ in case, or in the folders in front.
        """
        for key in (_stripped, _folded, _last_part):
            alike = self._with(key, written)
            if alike:
                return " or ".join(alike[:3])
        return ""

    def nearest(self, written: str) -> str:
        """The name that is spelt most like `written`; "" where none is. For a short list."""
        folded = self._by(_folded)
        nearest = difflib.get_close_matches(_folded(written), folded, n=1)
        return folded[nearest[0]][0] if nearest else ""

    def _with(self, key: Callable[[str], str], written: str) -> list[str]:
        return self._by(key).get(key(written), [])

    def _by(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        if key not in self._alike:
            alike = defaultdict(list)
            for name in self._names:
                alike[key(name)].append(name)
            self._alike[key] = alike
        return self._alike[key]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _stripped(name: str) -> str:
    return _composed(name).strip()


def _folded(name: str) -> str:
    return _stripped(name).casefold()


def _last_part(name: str) -> str:
    return _folded(name.replace("\\", "/").rpartition("/")[2])
