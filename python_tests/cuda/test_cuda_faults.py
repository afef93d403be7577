"""Faults planted into copies of csrc/cuda: what runs the kernels on the CPU must catch each.

A fault is one line of a kernel's source with another text. The perturb kernels are compiled with it
and run as in `exercise`, which the kernels as they are pass.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from emulation.build import BUILD, CSRC, Program, build, write_if_changed
from emulation.harness import Emulation, fresh_emulation, needs_compiler, program
from emulation.rows import forced
from emulation.runner import KernelError, Runner

from vaal_ext import reference

pytestmark = needs_compiler


@dataclasses.dataclass
class Fault:
    """Line `line` of csrc/cuda/`file`, without its indentation, becomes `becomes`."""

    file: str
    line: str
    becomes: str
    message: str  # what is found, as a regular expression


FAULTS = {
    "a load one past the end": Fault(
        "storage.cuh",
        "if (column(c, i) < end) put(pack, i, load_one(row + column(c, i)));",
        "if (column(c, i) <= end) put(pack, i, load_one(row + column(c, i)));",
        r"(?s)AddressSanitizer: heap-buffer-overflow.*READ of size 4.*load_one",
    ),
    "a store one past the end": Fault(
        "storage.cuh",
        "if (column(c, i) < end) row[column(c, i)] = unpack<T>(pack, i);",
        "if (column(c, i) <= end) row[column(c, i)] = unpack<T>(pack, i);",
        r"(?s)AddressSanitizer: heap-buffer-overflow.*WRITE of size 4.*store",
    ),
    "an output left unwritten": Fault(
        "storage.cuh",
        "if (column(c, i) < end) row[column(c, i)] = unpack<T>(pack, i);",
        "if (column(c, i) < end - 1) row[column(c, i)] = unpack<T>(pack, i);",
        r"left a part of its output unwritten",
    ),
    "a missing barrier": Fault(
        "group.cuh", "barrier();", "", r"a read of shared memory that nobody wrote"
    ),
    "reductions that overwrite each other": Fault(
        "group.cuh",
        "turn ^= 1;",
        "",
        r"a race in shared memory: thread \d+ (reads|writes) what .* since the last barrier",
    ),
    "a slot that no warp wrote": Fault(
        "group.cuh",
        "for (int warp = 1; warp < size / kWarp; ++warp) total = merge(total, slots.load(warp));",
        "for (int warp = 1; warp <= size / kWarp; ++warp) total = merge(total, slots.load(warp));",
        r"a read of shared memory that nobody wrote",
    ),
    "a thread that leaves before a barrier": Fault(
        "group.cuh",
        "if (rank % kWarp == 0) slots.store(rank / kWarp, state);",
        "if (rank >= 64) return state; if (rank % kWarp == 0) slots.store(rank / kWarp, state);",
        r"a barrier that not all threads reach: 64 of 96 threads wait there, 32 are done",
    ),
    "a shuffle that a lane leaves out": Fault(
        "group.cuh",
        "if (is_block() || flip < size) state = merge(state, shuffled(state, flip));",
        "if (is_block() || flip < size - rank) state = merge(state, shuffled(state, flip));",
        r"a shuffle to which not all lanes come",
    ),
    "a group that leaves for want of a row": Fault(
        "group.cuh",
        "f(row < rows ? row : rows - 1, row < rows);",
        "if (row < rows) f(row, true);",
        r"a shuffle to which not all lanes come: 8 of 64 threads wait",
    ),
}


def exercise(emulation: Emulation) -> None:
    """perturb against the reference in float32.

    Eight lanes a row, where five rows leave lanes of the second warp without one; a warp a row; and
    a block that goes through three rows. Rows of an odd length and of whole packs.
    """
    for rows, threads, path in ((5, 8, "warp"), (2, 32, "warp"), (3, 96, "block")):
        for cols in (21, 24):
            x, d = torch.randn(2, rows, cols)
            plan = forced("perturb", x, path, threads)
            plan.blocks = 1
            out, norm = emulation.perturb(x, d, 0.7, plan)
            expected, exact_norm = reference.perturb(x.double(), d.double(), 0.7, return_norm=True)
            # 32 roundoffs, as in test_cuda_emulation.py
            assert ((out - expected).abs() <= 2.0**-19 * (0.7 + expected.abs())).all()
            assert ((norm - exact_norm).abs() <= 2.0**-19 * exact_norm).all()


def planted(name: str) -> Program:
    """The perturb kernels for float32 from a copy of csrc/cuda with one fault."""
    fault, folder = FAULTS[name], BUILD / "faults" / name.replace(" ", "-")
    for source in [*(CSRC / "cuda").glob("*h"), *(CSRC / "math").glob("*.h")]:
        text = source.read_text()
        if source.name == fault.file:
            found = [line for line in text.splitlines() if line.strip() == fault.line]
            assert len(found) == 1, f"{fault.file} has {len(found)} lines {fault.line!r}"
            text = text.replace(found[0] + "\n", fault.becomes + "\n")
        write_if_changed(folder / source.relative_to(CSRC), text)
    return program("fault." + folder.name, ("perturb",), ("float",), folder)


@functools.cache
def programs() -> dict[str, Path]:
    """All faults, compiled together; they share what is not a kernel."""
    all_of_them = {name: planted(name) for name in FAULTS}
    build("faults.ninja", list(all_of_them.values()))
    return {name: each.path for name, each in all_of_them.items()}


def test_the_kernels_as_they_are_pass():
    exercise(fresh_emulation())


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name):
    torch.manual_seed(0)
    with pytest.raises(KernelError, match=FAULTS[name].message):
        exercise(Emulation(Runner(programs()[name])))


def test_a_runner_goes_on_after_a_fault():
    """What one call leaves behind, a broken process or unfinished threads, is gone for the next."""
    torch.manual_seed(0)
    emulation = Emulation(Runner(programs()["a missing barrier"]))
    x, d = torch.randn(2, 3, 24)
    for _ in range(2):
        with pytest.raises(KernelError, match="nobody wrote"):
            emulation.perturb(x, d, 0.7, forced("perturb", x, "block", 96))
        emulation.perturb(x, d, 0.7, forced("perturb", x, "warp", 8))
