"""What instructions leave in the registers of a thread, as far as it is known (sass_values.py).

Only what a branch of a kernel can hang on is understood: integers, addresses, comparisons,
predicates, parameters, and the three float instructions of an integer division. Every other result
is unknown, so that a gap here makes a branch unknown and never wrong.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from sass import PREDICATE, Instruction
from sass_predicates import PREDICATE_RULES
from sass_values import CONSTANT, WORD, State, float_of, signed, word_of


def run(one: Instruction, state: State) -> None:
    """What the instruction leaves in `state`. Its guard holds or is unknown."""
    front, registers, behind = one.writes
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


# --- The rules: {name: value} of what is known of an instruction's results ----------------------
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
    **PREDICATE_RULES,
    **dict.fromkeys(("SEL", "USEL", "FSEL"), select),
    **dict.fromkeys(("IMNMX", "VIMNMX", "UIMNMX", "UVIMNMX"), smaller_or_larger),
    **dict.fromkeys(("PRMT", "UPRMT"), permute),
    **dict.fromkeys(("LDC", "ULDC", "LDCU"), load_constant),
    **dict.fromkeys(("S2R", "S2UR", "CS2R"), special),
    "IABS": absolute,
    "HFMA2": halves,
    "I2F": to_float,
    "MUFU": reciprocal,
    "F2I": to_integer,
}
