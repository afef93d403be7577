"""The usual path of one warp through a kernel, and how many instructions it issues there.

The warp is followed from the first instruction to EXIT by its lane 0. Its integers are worked out
(sass_rules.py) from what the launch gives: the parameters, the shape, its place. So the branches
that hang on them go where they go on the GPU, and a loop over packs turns as often as it does
there. A branch that hangs on data (floats, what was loaded or shuffled) is decided by rules:

1. A way that ends in a call of the slow part of a division or square root (every way from it to the
   join holds a CALL) is not taken, nor is one that only warps take which have come apart.
2. A loop whose end hangs on data is gone through TURNS times.
3. Where one way is a shortcut past a piece in which lanes work together (SHFL, BAR), all threads of
   a row take the same: the shortcut (a row whose argmax moved far away is rare).
4. Where both ways are long (LONG instructions) it is a choice between two kinds of rows, and the
   shorter is taken.
5. Elsewhere lanes of one warp may differ, and both ways are counted.

`rare` reverses rules 3 and 4. An instruction whose guard is false is issued like any other, and
counts.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from sass import OVER, STEP, Code, Instruction
from sass_rules import run
from sass_values import State

TURNS = 3
LONG = 40
MOST_STEPS = 5_000_000
TOGETHER = ("SHFL", "BAR", "REDUX")
LOADS = ("LDG", "LDGSTS")


@dataclasses.dataclass(frozen=True)
class Launch:
    """What the kernel is called with. constants: bank 0, byte → its value."""

    constants: dict[int, int]
    thread: int
    block: int = 0


@dataclasses.dataclass
class Path:
    issued: Counter[int] = dataclasses.field(default_factory=Counter)  # by place
    loaded: Counter[int] = dataclasses.field(
        default_factory=Counter
    )  # bytes, by those of an access
    stored: Counter[int] = dataclasses.field(default_factory=Counter)
    in_flight: int = 0  # the most bytes that a thread has asked for and not yet used
    choices: dict[int, str] = dataclasses.field(default_factory=dict)  # place of a branch → why

    @property
    def instructions(self) -> int:
        return self.issued.total()

    @property
    def moved(self) -> int:
        """Bytes of a thread's share of its rows: whole packs, where there are any.

        What else it moves is a number a row, which one lane writes or all read in one place.
        """
        both = self.loaded + self.stored
        return both[16] or both.total()


class Walk:
    """One walk; `path` is its result."""

    def __init__(self, code: Code, launch: Launch, *, rare: bool = False) -> None:
        self.code, self.rare = code, rare
        self.path = Path()
        self.steps = 0
        self.turns: Counter[int] = Counter()
        self.pending: dict[str, int] = {}  # register → the load that fills it
        self.loads: dict[int, int] = {}  # loads on their way, in order: number → bytes
        self.groups = 0  # of asynchronous copies
        state = State(launch.constants)
        state.known["SR_TID.X"] = launch.thread
        state.known["SR_CTAID.X"] = launch.block
        state.known["SR_LANEID"] = launch.thread % 32
        state.known.update(dict.fromkeys(("SR_TID.Y", "SR_TID.Z", "SR_CgaCtaId"), 0))
        self._from(code.starts[0], OVER, state, [])

    def _from(self, start: int, stop: int, state: State, calls: list[int]) -> State | None:
        """Walks until `stop`; returns the state there, or None where the kernel ended before."""
        while start not in (stop, OVER):
            block = self.code.blocks[start]
            for one in block:
                self._step(one, state)
            end = block[-1]
            taken = self._taken(end, state)
            if start in self.code.calls and taken:
                calls.append(end.at + STEP)
                start = end.target
                continue
            if end.base == "RET" and calls:
                start = calls.pop()
                continue
            ways = self.code.next[start]
            if end.base in ("EXIT", "CALL"):
                taken = bool(taken)  # usual threads have work to do, and no slow paths
            if len(ways) == 1:
                start = ways[0]
                continue
            if taken is not None:
                start = ways[0] if taken else ways[1]
                continue
            join = self.code.joins[start]
            ways = self._choose(start, end, ways, join)
            if len(ways) == 1:
                start = ways[0]
                continue
            ends = [self._from(way, join, state.copy(), list(calls)) for way in ways]
            states = [one for one in ends if one is not None]
            if not states:
                return None
            state = states[0]
            for other in states[1:]:
                state.meet(other)
            start = join
        return state if start == stop else None

    @staticmethod
    def _taken(end: Instruction, state: State) -> bool | None:
        found = [state.predicate(word) for word in end.conditions]
        return False if False in found else None if None in found else True

    def _choose(
        self, start: int, end: Instruction, ways: tuple[int, ...], join: int
    ) -> tuple[int, ...]:
        code = self.code
        regions = [code.region(way, join) for way in ways]
        cold = [self._is_cold(way, join) for way in ways]
        if cold.count(True) == 1:
            return self._because(end, "slow path", ways, cold.index(False))
        back = [start in region for region in regions]
        if back.count(True) == 1:
            self.turns[start] += 1
            again = self.turns[start] % TURNS != 0
            return self._because(end, f"loop, {TURNS} turns", ways, back.index(again))
        sizes = [sum(len(code.blocks[one]) for one in region) for region in regions]
        together = [self._works_together(region) for region in regions]
        if 0 in sizes and True in together:
            return self._because(end, "rare row", ways, (sizes.index(0) + self.rare) % 2)
        if min(sizes) >= LONG:
            shorter = sizes.index(min(sizes))
            return self._because(end, "kind of row", ways, (shorter + self.rare) % 2)
        self.path.choices[end.at] = "both"
        return ways

    def _because(
        self, end: Instruction, why: str, ways: tuple[int, ...], chosen: int
    ) -> tuple[int, ...]:
        self.path.choices[end.at] = f"{why} → {ways[chosen]:#06x}"
        return (ways[chosen],)

    def _is_cold(self, way: int, join: int) -> bool:
        """Whether every way from there to the join holds a call."""
        seen, left = set(), [way]
        while left:
            here = left.pop()
            if here in (join, OVER):
                return False
            if here in seen or here in self.code.calls:
                continue
            seen.add(here)
            left.extend(self.code.next[here])
        return True

    def _works_together(self, region: set[int]) -> bool:
        return any(one.base in TOGETHER for start in region for one in self.code.blocks[start])

    def _step(self, one: Instruction, state: State) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise RuntimeError(f"no end after {MOST_STEPS} instructions, at {one.at:#06x}")
        self.path.issued[one.at] += 1
        idle = bool(one.guard) and state.predicate(one.guard) is False
        self._memory(one, idle)
        if not idle:
            run(one, state)

    def _memory(self, one: Instruction, idle: bool) -> None:
        for name in one.reads & self.pending.keys():
            if name in self.pending:
                self._arrived(self.pending[name])
        if one.base == "DEPBAR":
            keep = int(one.operands[-1], 16) if len(one.operands) > 1 else 0
            for number in [n for n, _ in self.loads.items() if n < 0 and -n <= self.groups - keep]:
                self.loads.pop(number)
        if one.base == "LDGDEPBAR":
            self.groups += 1
        if idle:
            return
        size = one.access_bytes
        if one.base in LOADS:
            self.path.loaded[size] += size
            if one.base == "LDG":
                number = self.steps
                for name in one.writes[1]:
                    self.pending[name] = number
                self.loads[number] = size
            else:
                group = -(self.groups + 1)
                self.loads[group] = self.loads.get(group, 0) + size
            self.path.in_flight = max(self.path.in_flight, sum(self.loads.values()))
        elif one.base == "STG":
            self.path.stored[size] += size
        else:
            for name in one.writes[1]:
                self.pending.pop(name, None)

    def _arrived(self, number: int) -> None:
        """A load is used: it and those before it have come."""
        for earlier in [n for n in self.loads if 0 < n <= number]:
            self.loads.pop(earlier)
        self.pending = {name: n for name, n in self.pending.items() if n > number}
