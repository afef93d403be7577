"""What a thread's registers hold while its integers are followed: known words, the rest unknown.

A value is an int of 32 bits or None, a predicate True, False or None. sass_rules.py says what an
instruction makes of them.
"""

from __future__ import annotations

import re
import struct

from sass import PREDICATE, REGISTER

WORD = 0xFFFFFFFF
CONSTANT = re.compile(r"c\[0x0\]\[(?:0x([0-9a-f]+)|U?RZ)\]$")


class State:
    """Registers and predicates of a thread. What is in neither of the dictionaries is unknown."""

    def __init__(self, constants: dict[int, int]) -> None:
        self.constants = constants  # bank 0: byte → its value
        # A kernel cannot depend on what a register holds before it is written: zeros will do.
        self.known: dict[str, int | bool] = {
            f"{kind}{i}": 0 for kind in ("R", "UR") for i in range(256)
        }
        self.partly: dict[str, tuple[int, int]] = {}  # (value, mask of its known bits)

    def copy(self) -> State:
        other = State.__new__(State)
        other.constants, other.known, other.partly = (
            self.constants,
            self.known.copy(),
            self.partly.copy(),
        )
        return other

    def meet(self, other: State) -> None:
        """Keeps what both know."""
        for name in [*self.known, *self.partly]:
            if self.known.get(name, self) != other.known.get(name, other):
                self.set(name, self.agreed(name, self.bits(name), other.bits(name)))

    @staticmethod
    def agreed(name: str, x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int] | None:
        if "P" in name:
            return None
        mask = x[1] & y[1] & ~(x[0] ^ y[0])
        return x[0] & mask, mask

    def bits(self, name: str) -> tuple[int, int]:
        """(value, mask of the known bits) of a register."""
        if name in self.known:
            return self.known[name], WORD
        return self.partly.get(name, (0, 0))

    def set(self, name: str, value: int | bool | tuple[int, int] | None) -> None:
        self.known.pop(name, None)
        self.partly.pop(name, None)
        if name in ("RZ", "URZ", "PT", "UPT") or value is None:
            return
        if isinstance(value, tuple):
            if value[1] != WORD:
                if value[1]:
                    self.partly[name] = value
                return
            value = value[0]
        self.known[name] = value

    def predicate(self, word: str) -> bool | None:
        found = PREDICATE.match(word)
        if not found:
            return None
        held = True if found[2] == "T" else self.known.get(found[1])
        return None if held is None else held != word.startswith("!")

    def constant(self, at: int, size: int) -> int | None:
        held = [self.constants.get(at + i) for i in range(size)]
        return None if None in held else sum(byte << 8 * i for i, byte in enumerate(held))

    def _plain(self, word: str, high: bool) -> int | None:
        """A word without its sign; `high`: the upper half of the pair that begins there."""
        if word in ("RZ", "URZ", "SRZ"):
            return 0
        if found := REGISTER.match(word):
            number = int(found[1]) + high
            return self.known.get(word.rstrip("0123456789") + str(number))
        if found := CONSTANT.match(word):
            return self.constant(int(found[1] or "0", 16) + 4 * high, 4)
        if re.match(r"-?0x[0-9a-f]+$", word):
            return (int(word, 16) >> 32 * high) & WORD
        return None

    def word(self, word: str) -> int | None:
        sign = word[0] if word[0] in "-~" and not word.startswith("-0x") else ""
        value = self._plain(word[len(sign) :].removesuffix(".64"), False)
        if value is None or not sign:
            return value
        return (-value if sign == "-" else ~value) & WORD

    def pair(self, word: str) -> int | None:
        sign = word[0] if word[0] in "-~" and not word.startswith("-0x") else ""
        word = word[len(sign) :].removesuffix(".64")
        low, high = self._plain(word, False), self._plain(word, True)
        if low is None or high is None:
            return None
        value = high << 32 | low
        return {"": value, "-": -value, "~": ~value}[sign] & (WORD << 32 | WORD)


def signed(value: int, bits: int = 32) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def float_of(word: int) -> float:
    return struct.unpack("<f", struct.pack("<I", word))[0]


def word_of(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0]
