"""What one thread's registers hold while its integers are followed: known words, and all else unknown.

A value is an int of 32 bits or None, a predicate True, False or None. Only what a branch of a kernel
can hang on is understood: integers, addresses, comparisons, predicates, parameters, and the three
float instructions of an integer division. Every other result is None, so that a gap here makes a
branch unknown and never wrong.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from sass import Instruction

WORD = 0xFFFFFFFF
REGISTER = re.compile(r"U?R(\d+)$")
PREDICATE = re.compile(r"!?(U?P(\d|T))$")
CONSTANT = re.compile(r"c\[0x0\]\[(?:0x([0-9a-f]+)|U?RZ)\]$")
NO_RESULT = ("ST", "STG", "STS", "STL", "RED", "BAR", "BSYNC", "BSSY", "EXIT", "BRA", "NOP", "RET")
NO_RESULT += ("CALL", "WARPSYNC", "DEPBAR", "MEMBAR", "ERRBAR", "CCTL", "LDGDEPBAR", "YIELD")
NO_RESULT += ("ENDCOLLECTIVE", "LDGSTS", "BMOV", "JMP", "BREAK", "PREFETCH", "UBLKCP", "SYNCS")
PAIRS = re.compile(
    r"^D[A-Z]|^F[A-Z]+2$|^CS2R$|^U?IMAD\.WIDE|^(?:I2F|F2F)\.F64|^F2I.*\.[US]64"
    r"|^(?!U?SHF|I2F|F2I|F2F).*\.(?:64|[USF]64)\b"
)


class State:
    """Registers and predicates of a thread. What is in neither of the dictionaries is unknown."""

    def __init__(self, constants: dict[int, int]) -> None:
        self.constants = constants  # bank 0: byte → its value
        # A kernel cannot depend on what a register holds before it is written: zeros will do.
        self.known: dict[str, int | bool] = {f"{kind}{i}": 0 for kind in ("R", "UR") for i in range(256)}
        self.partly: dict[str, tuple[int, int]] = {}  # (value, mask of its known bits)

    def copy(self) -> State:
        other = State.__new__(State)
        other.constants, other.known, other.partly = self.constants, self.known.copy(), self.partly.copy()
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


def destinations(one: Instruction) -> tuple[list[str], list[str], list[str]]:
    """(predicates in front, registers, predicates behind) that an instruction writes.

    A pair or a quadruple is given as all of its registers.
    """
    if one.base in NO_RESULT or not one.operands:
        return [], [], []
    words = list(one.operands)
    if one.base == "R2P":
        return [f"P{i}" for i in range(7)], [], []
    if "SETP" in one.base or one.base in ("PLOP3", "UPLOP3", "FCHK"):
        return [word for word in words[:2] if PREDICATE.match(word)], [], []
    front = []
    while words and PREDICATE.match(words[0]):
        front.append(words.pop(0))
    if not words or not (REGISTER.match(words[0]) or words[0] in ("RZ", "URZ")):
        return front, [], []
    first = words.pop(0)
    behind = []
    while words and PREDICATE.match(words[0]):
        behind.append(words.pop(0))
    count = 4 if ".128" in one.opcode else 2 if PAIRS.search(one.opcode) else 1
    if one.opcode.endswith(("64H", ".32")):
        count = 1
    if first in ("RZ", "URZ"):
        return front, [first], behind
    stem, number = first.rstrip("0123456789"), int(REGISTER.match(first)[1])
    return front, [f"{stem}{number + i}" for i in range(count)], behind


def run(one: Instruction, state: State) -> None:
    """What the instruction leaves in `state`. Its guard holds or is unknown."""
    front, registers, behind = destinations(one)
    if not front and not registers and not behind:
        return
    rule = RULES.get(one.base)
    results = rule(one, state, front, registers, behind) if rule else {}
    certain = not one.guard or state.predicate(one.guard)
    for name in (*front, *registers, *behind):
        value = results.get(name)
        if not certain and state.known.get(name) != value:
            new = value if isinstance(value, tuple) else (0, 0) if value is None else (value, WORD)
            value = state.agreed(name, state.bits(name), new)
        state.set(name, value)


# --- The rules: {name: value} of what is known of an instruction's results -------------------------
Rule = Callable[[Instruction, State, list[str], list[str], list[str]], dict]


def sources(one: Instruction, front: list[str], behind: list[str]) -> list[str]:
    """The operands behind the destinations."""
    return list(one.operands[len(front) + 1 + len(behind) :])


def split(registers: list[str], value: int | None) -> dict:
    if value is None:
        return {}
    return {name: value >> 32 * i & WORD for i, name in enumerate(registers)}


def move(one, state, front, registers, behind):
    value = (state.pair if len(registers) > 1 else state.word)(sources(one, front, behind)[0])
    return split(registers, value)


def add(one, state, front, registers, behind):
    """IADD3 and its kin. A carry in comes last; a difference is a + ~b + 1."""
    words = sources(one, front, behind)
    wide = len(registers) > 1
    bits = 64 if wide else 32
    total, extended = 0, ".X" in one.opcode
    for word in words:
        if PREDICATE.match(word):
            if extended:
                carry = state.predicate(word)
                if carry is None:
                    return {}
                total += carry
            continue
        value = (state.pair if wide else state.word)(word)
        if value is None:
            return {}
        total += value
        # −0 is 2^32 here, as a + ~0 + 1 carries.
        if word.startswith("-") and not word.startswith("-0x") and value == 0:
            total += 1 << bits
    results = split(registers, total & ((1 << bits) - 1))
    for name in behind[:1]:
        results[name] = total >> bits > 0
    return results


def multiply(one, state, front, registers, behind):
    """IMAD: a·b + c, the low word, both (WIDE) or the high one (HI)."""
    a, b, c, *rest = sources(one, front, behind)
    wide, high = ".WIDE" in one.opcode, ".HI" in one.opcode
    x, y = state.word(a), state.word(b)
    z = (state.pair if wide or high else state.word)(c)
    if 0 in (x, y):
        x = y = 0
    if None in (x, y, z):
        return {}
    if (wide or high) and ".U32" not in one.opcode:
        x, y = signed(x), signed(y)
    total = x * y + z
    if ".X" in one.opcode:
        carry = state.predicate(rest[0]) if rest else None
        if carry is None:
            return {}
        total += carry
    results = split(registers, total >> 32 & WORD if high else total)
    for name in behind[:1]:
        results[name] = total >> 64 > 0 if wide else None
    return results


def shifted_add(one, state, front, registers, behind):
    """LEA: (a << s) + b. HI: the high word of c:a (SX32: c is the sign of a) instead."""
    words = sources(one, front, behind)
    carry = 0
    if ".X" in one.opcode:
        carry = state.predicate(words.pop())
    words = [word for word in words if not PREDICATE.match(word)]
    a, b = state.word(words[0]), state.word(words[1])
    shift = state.word(words[-1])
    if None in (a, b, carry, shift):
        return {}
    if ".HI" in one.opcode:
        c = (WORD if a >> 31 else 0) if ".SX32" in one.opcode else state.word(words[2])
        if c is None:
            return {}
        total = ((c << 32 | a) << shift >> 32 & WORD) + b + carry
    else:
        total = (a << shift & WORD) + b + carry
    results = {registers[0]: total & WORD}
    for name in behind[:1]:
        results[name] = total > WORD
    return results


def shift(one, state, front, registers, behind):
    """SHF: the funnel c:a."""
    low, by, high = (state.word(word) for word in sources(one, front, behind)[:3])
    if "RZ" in sources(one, front, behind)[0] and ".HI" in one.opcode and ".R" in one.opcode:
        low = 0
    if None in (low, by, high):
        return {}
    by = by & 31 if ".W" in one.opcode else min(by, 63 if "64" in one.opcode else 32)
    value = high << 32 | low
    if ".R" in one.opcode:
        value = (signed(value, 64) if ".S32" in one.opcode or ".S64" in one.opcode else value) >> by
    else:
        value <<= by
    return {registers[0]: (value >> 32 if ".HI" in one.opcode else value) & WORD}


def logic(one, state, front, registers, behind):
    """LOP3: a table of three bits. A predicate in front tells whether any bit is set.

    Bit by bit: flags are kept in words of which other bits are unknown.
    """
    words = sources(one, front, behind)
    inputs = []
    for word in words[:3]:
        value = state.word(word)
        inputs.append(state.bits(word) if value is None else (value, WORD))
    table = int(words[3], 16)
    may_be = [0, 0]
    for row in range(8):
        possible = WORD
        for i, (value, mask) in enumerate(inputs):
            possible &= ~mask | (value if row >> 2 - i & 1 else ~value)
        may_be[table >> row & 1] |= possible
    mask = ~(may_be[0] & may_be[1]) & WORD
    value = may_be[1] & mask
    results = dict.fromkeys(registers, (value, mask))
    for name in front[:1]:
        results[name] = True if value else False if mask == WORD else None
    return results


def predicate_logic(one, state, front, registers, behind):
    """PLOP3: known as soon as the unknown inputs do not matter."""
    words = one.operands[len(front) :]
    inputs = [state.predicate(word) for word in words[:3]]
    results = {}
    for name, word in zip(front, words[3:], strict=False):
        table = int(word, 16)
        rows = [
            row
            for row in range(8)
            if all(held in (None, bool(row >> 2 - i & 1)) for i, held in enumerate(inputs))
        ]
        found = {table >> row & 1 for row in rows}
        results[name] = bool(found.pop()) if len(found) == 1 else None
    return results


COMPARE = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
}


def combine(kind: str, x: bool | None, y: bool | None) -> bool | None:
    if kind == "AND":
        return False if False in (x, y) else None if None in (x, y) else True
    if kind == "OR":
        return True if True in (x, y) else None if None in (x, y) else False
    return None if None in (x, y) else x != y


def compare(one, state, front, registers, behind):
    """ISETP: a comparison (EX: of the high words, with that of the low ones), and a predicate."""
    parts = one.opcode.split(".")
    words = one.operands[len(front) :]
    relation = parts[1]
    bits = 64 if "S64" in parts or "U64" in parts else 32
    a, b = ((state.pair if bits == 64 else state.word)(word) for word in words[:2])
    found = None
    if a is not None and b is not None:
        if not {"U32", "U64"} & set(parts):
            a, b = signed(a, bits), signed(b, bits)
        found = COMPARE[relation](a, b)
        if "EX" in parts:
            low = state.predicate(words[3])
            if relation == "EQ":
                found = combine("AND", found, low)
            elif relation == "NE":
                found = combine("OR", found, low)
            elif a == b:
                found = low
    kind = next(part for part in parts[2:] if part in ("AND", "OR", "XOR"))
    with_third = state.predicate(words[2])
    results = {front[0]: combine(kind, found, with_third)}
    if len(front) > 1:
        results[front[1]] = combine(kind, None if found is None else not found, with_third)
    return results


def select(one, state, front, registers, behind):
    a, b, which = sources(one, front, behind)[:3]
    if one.base == "FSEL" and (a + b).count("-"):  # the sign of a float
        return {}
    chosen = state.predicate(which)
    read = state.pair if len(registers) > 1 else state.word
    x, y = read(a), read(b)
    value = x if chosen or (chosen is None and x == y) else None if chosen is None else y
    return split(registers, value)


def smaller_or_larger(one, state, front, registers, behind):
    words = sources(one, front, behind)
    a, b = (state.pair(w) if len(registers) > 1 else state.word(w) for w in words[:2])
    smaller = state.predicate(words[2])
    if None in (a, b, smaller):
        return {}
    bits = 32 * len(registers)
    key = (lambda x: x) if ".U" in one.opcode else (lambda x: signed(x, bits))
    return split(registers, (min if smaller else max)(a, b, key=key))


def permute(one, state, front, registers, behind):
    a, choice, c = (state.word(word) for word in sources(one, front, behind)[:3])
    if None in (a, choice, c):
        return {}
    both, value = c << 32 | a, 0
    for i in range(4):
        place = choice >> 4 * i & 15
        byte = both >> 8 * (place & 7) & 255
        value |= (255 * (byte >> 7) if place & 8 else byte) << 8 * i
    return {registers[0]: value}


def predicates_to_word(one, state, front, registers, behind):
    bank, base, mask = one.operands[1:4]
    bits = state.word(mask)
    value = state.word(base)
    if bank not in ("PR", "UPR") or bits is None or value is None:
        return {}
    value &= ~bits
    stem = bank[:-1]
    for i in range(8):
        if bits >> i & 1:
            held = True if i == 7 else state.predicate(f"{stem}{i}")
            if held is None:
                return {}
            value |= held << i
    return {registers[0]: value & WORD}


def word_to_predicates(one, state, front, registers, behind):
    value, mask = state.word(one.operands[1]), state.word(one.operands[2])
    results = {name: state.known.get(name) for name in front}
    if mask is None:
        return {}
    for i, name in enumerate(front):
        if mask >> i & 1:
            results[name] = None if value is None else bool(value >> i & 1)
    return results


def load_constant(one, state, front, registers, behind):
    found = CONSTANT.match(sources(one, front, behind)[0])
    if not found:
        return {}
    at = int(found[1] or "0", 16)
    size = 1 if ".U8" in one.opcode else 2 if ".U16" in one.opcode else 4 * len(registers)
    return split(registers, state.constant(at, size))


def special(one, state, front, registers, behind):
    name = sources(one, front, behind)[0]
    return split(registers, 0 if name == "SRZ" else state.known.get(name))


def absolute(one, state, front, registers, behind):
    value = state.word(sources(one, front, behind)[0])
    return split(registers, None if value is None else abs(signed(value)))


def halves(one, state, front, registers, behind):
    """HFMA2 −0·0 + (a, b) is how a constant is moved beside the integer units."""
    words = sources(one, front, behind)
    if [word.lstrip("-") for word in words[:2]] != ["RZ", "RZ"] or len(words) != 4:
        return {}
    try:
        high, low = (struct.unpack("<H", struct.pack("<e", float(word)))[0] for word in words[2:])
    except ValueError:  # +INF, QNAN, a register
        return {}
    return {registers[0]: high << 16 | low}


def to_float(one, state, front, registers, behind):
    """I2F.RP: rounded up."""
    value = state.word(sources(one, front, behind)[0])
    if value is None or not re.fullmatch(r"I2F(\.U32)?\.RP", one.opcode):
        return {}
    word = word_of(float(value if ".U32" in one.opcode else signed(value)))
    return {registers[0]: word + (float_of(word) < value)}


def reciprocal(one, state, front, registers, behind):
    value = state.word(sources(one, front, behind)[0])
    if one.opcode != "MUFU.RCP" or not value or not 0 < float_of(value) < 2**100:
        return {}
    return {registers[0]: word_of(1 / float_of(value))}


def to_integer(one, state, front, registers, behind):
    value = state.word(sources(one, front, behind)[0])
    if value is None or not one.opcode.startswith("F2I.FTZ.U32.TRUNC"):
        return {}
    return {registers[0]: min(WORD, max(0, int(float_of(value))))}


RULES: dict[str, Rule] = {
    **dict.fromkeys(("MOV", "UMOV", "R2UR"), move),
    **dict.fromkeys(("IADD3", "UIADD3", "IADD", "UIADD", "VIADD"), add),
    **dict.fromkeys(("IMAD", "UIMAD"), multiply),
    **dict.fromkeys(("LEA", "ULEA"), shifted_add),
    **dict.fromkeys(("SHF", "USHF"), shift),
    **dict.fromkeys(("LOP3", "ULOP3"), logic),
    **dict.fromkeys(("PLOP3", "UPLOP3"), predicate_logic),
    **dict.fromkeys(("ISETP", "UISETP"), compare),
    **dict.fromkeys(("SEL", "USEL", "FSEL"), select),
    **dict.fromkeys(("IMNMX", "VIMNMX", "UIMNMX", "UVIMNMX"), smaller_or_larger),
    **dict.fromkeys(("PRMT", "UPRMT"), permute),
    **dict.fromkeys(("LDC", "ULDC", "LDCU"), load_constant),
    **dict.fromkeys(("S2R", "S2UR", "CS2R"), special),
    "P2R": predicates_to_word,
    "R2P": word_to_predicates,
    "IABS": absolute,
    "HFMA2": halves,
    "I2F": to_float,
    "MUFU": reciprocal,
    "F2I": to_integer,
}
