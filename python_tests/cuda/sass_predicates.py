"""The rules (sass_rules.py) of comparisons and predicates."""

from __future__ import annotations

from sass_values import WORD, signed


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


PREDICATE_RULES = {
    **dict.fromkeys(("PLOP3", "UPLOP3"), predicate_logic),
    **dict.fromkeys(("ISETP", "UISETP"), compare),
    "P2R": predicates_to_word,
    "R2P": word_to_predicates,
}
