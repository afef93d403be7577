"""The machine code of kernels as cuobjdump writes it: instructions, basic blocks, their joins."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

STEP = 16  # bytes of an instruction, from sm_70 on
LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.+?)\s*;")
GUARDED = re.compile(r"^@(!?)(U?P(?:\d|T))\s+(.*)$")
REGISTER = re.compile(r"U?R(\d+)$")
PREDICATE = re.compile(r"!?(U?P(\d|T))$")
NO_RESULT = ("ST", "STG", "STS", "STL", "RED", "BAR", "BSYNC", "BSSY", "EXIT", "BRA", "NOP", "RET")
NO_RESULT += ("CALL", "WARPSYNC", "DEPBAR", "MEMBAR", "ERRBAR", "CCTL", "LDGDEPBAR", "YIELD")
NO_RESULT += ("ENDCOLLECTIVE", "LDGSTS", "BMOV", "JMP", "BREAK", "PREFETCH", "UBLKCP", "SYNCS")
PAIRS = re.compile(
    r"^D[A-Z]|^F[A-Z]+2$|^CS2R$|^U?IMAD\.WIDE|^(?:I2F|F2F)\.F64|^F2I.*\.[US]64"
    r"|^(?!U?SHF|I2F|F2I|F2F).*\.(?:64|[USF]64)\b"
)
ACCESS = ((".128", 16), (".64", 8), (".U16", 2), (".S16", 2), (".U8", 1), (".S8", 1))  # bytes
JUMPS = ("BRA", "JMP", "BRX", "JMX")
ENDS = ("EXIT", "RET", "BPT", "KILL")
OVER = -1  # where an EXIT leads to


def find_cuobjdump() -> str | None:
    """That of a toolkit, or the one in Triton's wheel."""
    triton = importlib.util.find_spec("triton")
    beside = Path(triton.origin).parent / "backends" / "nvidia" / "bin" if triton else Path()
    return shutil.which("cuobjdump") or shutil.which("cuobjdump", path=beside)


def demangled(names: list[str]) -> list[str]:
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@dataclasses.dataclass(frozen=True)
class Instruction:
    at: int
    guard: str  # of a predicate, as "P0" and "!P0"; "" where there is none
    opcode: str  # with its modifiers, as "LDG.E.128"
    operands: tuple[str, ...]

    @functools.cached_property
    def base(self) -> str:
        return self.opcode.partition(".")[0]

    @functools.cached_property
    def target(self) -> int | None:
        """Where a jump or a call goes, if it is written down."""
        if self.base in (*JUMPS, "CALL") and self.operands:
            found = re.fullmatch(r"0x[0-9a-f]+", self.operands[-1])
            return int(found[0], 16) if found else None
        return None

    @functools.cached_property
    def conditions(self) -> list[str]:
        """The predicates that must hold for a jump or an exit."""
        named = [word for word in self.operands[:-1] if PREDICATE.match(word)]
        return [word for word in [self.guard, *named] if word and word not in ("PT", "UPT")]

    @functools.cached_property
    def writes(self) -> tuple[list[str], list[str], list[str]]:
        """The predicates in front, the registers and the predicates behind that it sets.

        A pair or a quadruple is given as all of its registers.
        """
        if self.base in NO_RESULT or not self.operands:
            return [], [], []
        words = list(self.operands)
        if self.base == "R2P":
            return [f"P{i}" for i in range(7)], [], []
        if "SETP" in self.base or self.base in ("PLOP3", "UPLOP3", "FCHK"):
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
        count = 4 if ".128" in self.opcode else 2 if PAIRS.search(self.opcode) else 1
        if self.opcode.endswith(("64H", ".32")):
            count = 1
        if first in ("RZ", "URZ"):
            return front, [first], behind
        stem, number = first.rstrip("0123456789"), int(REGISTER.match(first)[1])
        return front, [f"{stem}{number + i}" for i in range(count)], behind

    @functools.cached_property
    def reads(self) -> frozenset[str]:
        """The registers (not the uniform ones) that it names besides the one it sets first."""
        words = self.operands[0 if self.base in NO_RESULT else 1 :]
        return frozenset(name for word in words for name in re.findall(r"\bR\d+", word))

    @functools.cached_property
    def access_bytes(self) -> int:
        """Of a load or a store of one thread."""
        return next((size for mark, size in ACCESS if mark in self.opcode), 4)

    def __str__(self) -> str:
        guard = f"@{self.guard} " if self.guard else ""
        return f"{guard}{self.opcode} {', '.join(self.operands)}"


def read_instruction(at: int, text: str) -> Instruction:
    guard = ""
    if guarded := GUARDED.match(text):
        guard, text = guarded[1] + guarded[2], guarded[3]
    opcode, _, rest = text.partition(" ")
    operands = tuple(word.replace(".reuse", "").strip() for word in rest.split(",") if word.strip())
    # "UP0, 0x10" of BRA.U may come as "!UP0 0x10" in one word.
    return Instruction(at, guard, opcode, operands)


def functions(binary: Path, architecture: str) -> Iterator[tuple[str, list[Instruction]]]:
    """(mangled name, instructions) of every kernel for "sm_90", say."""
    tool = find_cuobjdump()
    if tool is None:
        raise FileNotFoundError("there is no cuobjdump, on PATH or in Triton's wheel")
    name, code = "", []
    with subprocess.Popen(
        [tool, "-sass", "-arch", architecture, str(binary)], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if "Function : " in line:
                if code:
                    yield name, code
                name, code = line.split("Function : ")[1].strip(), []
            elif found := LINE.match(line):
                code.append(read_instruction(int(found[1], 16), found[2]))
        if code:
            yield name, code
    if process.returncode != 0:
        raise RuntimeError(f"cuobjdump failed on {binary}")


class Code:
    """A kernel's basic blocks, by the place of their first instruction.

    A call is a step to what stands behind it: what it calls is not in the graph, unless that never
    returns (a call of an EXIT is how some jumps are written). Of the two jumps for
    warps that have come apart BRA.DIV is never taken and BRA.CONV always is: usual warps are whole.
    """

    def __init__(self, instructions: list[Instruction]) -> None:
        self.at = {one.at: one for one in instructions}
        starts = {instructions[0].at}
        for one in instructions:
            if one.base in (*JUMPS, "CALL") or one.base in ENDS:
                starts.add(one.at + STEP)
            if one.target is not None:
                starts.add(one.target)
        ordered = sorted(start for start in starts if start in self.at)
        self.blocks: dict[int, list[Instruction]] = {}
        for one in instructions:
            if one.at in starts:
                self.blocks[one.at] = []
                last = one.at
            self.blocks[last].append(one)
        self.starts = ordered
        self.next = {start: self._successors(block) for start, block in self.blocks.items()}
        self.calls = set()  # blocks that end in a call which comes back
        for start, block in self.blocks.items():
            call = block[-1]
            if call.base != "CALL":
                continue
            if call.target not in self.blocks or self._returns(call.target):
                self.calls.add(start)
            else:
                self.next[start] = (call.target, *self.next[start][: bool(call.guard)])

    def _returns(self, start: int) -> bool:
        return any(self.blocks[one][-1].base == "RET" for one in self.region(start, OVER))

    def _successors(self, block: list[Instruction]) -> tuple[int, ...]:
        end = block[-1]
        after = end.at + STEP
        if end.base in ENDS:
            return (OVER, after) if end.guard and after in self.at else (OVER,)
        if end.opcode.startswith("BRA.CONV"):
            return (end.target,)
        if end.base in JUMPS and not end.opcode.startswith("BRA.DIV"):
            ways = [] if end.target is None else [end.target]
            if end.conditions:
                ways.append(after)
            return tuple(dict.fromkeys(way for way in ways if way in self.at))
        return (after if after in self.at else OVER,)

    @functools.cached_property
    def joins(self) -> dict[int, int]:
        """Each block's nearest block that every way to the end passes; OVER: there is none."""
        bit = {start: 1 << i for i, start in enumerate([OVER, *self.starts])}
        every = (1 << len(bit)) - 1
        after = dict.fromkeys(self.starts, every) | {OVER: bit[OVER]}
        changed = True
        while changed:
            changed = False
            for start in reversed(self.starts):
                found = every
                for way in self.next[start]:
                    found &= after[way]
                found |= bit[start]
                if found != after[start]:
                    after[start], changed = found, True
        nearest = {}
        for start in self.starts:
            passed = [one for one in bit if after[start] & bit[one] and one != start]
            # They stand in one line, and the nearest has all the others behind it.
            nearest[start] = max(passed, key=lambda one: after[one].bit_count(), default=OVER)
        return nearest

    def region(self, start: int, stop: int) -> set[int]:
        """The blocks on the ways from `start` that come before `stop`."""
        seen, left = set(), [start]
        while left:
            here = left.pop()
            if here in (stop, OVER) or here in seen:
                continue
            seen.add(here)
            left.extend(self.next[here])
        return seen
