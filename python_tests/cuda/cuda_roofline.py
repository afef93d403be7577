"""How many instructions an element costs in each kernel, and what that leaves of a copy's speed.

With PYTHONPATH=python_tests:

python python_tests/cuda/cuda_roofline.py      rewrites csrc/cuda/roofline.csv for this nvcc
python python_tests/cuda/cuda_roofline.py BINARY [WORD ...] [--arch sm_90] [--cols N] [--rare]
    [--blocks]                                 prints what it finds in a .so, .o or .cubin

Instructions an element: one warp of a launch is followed through the machine code (sass_walk.py
says how, and what it takes for usual); what it issues counts for all warps of the launch, 32 lanes
each, and is divided by the elements of the tensor [rows, cols]. All of a block counts: its start,
its reductions, its end. The cases are rows that the plan fills: 32 lanes full, 1000, 10000 and
(few) 128256 classes; images of 3072 and 150528 elements.

A launch's time an element is the longest of
  bytes    the packs of 16 bytes that its threads load and store, at the rate of a copy
  issue    its instructions, four warps a cycle and multiprocessor
  flight   the bytes at the rate that the bytes in flight allow: what a thread has asked for at
           most before it uses the first of it, for all threads of the blocks that fit on a
           multiprocessor
  special  exponentials, reciprocals, square roots and sines, 16 lanes a cycle
  float64  operations on doubles
"Bound by" is that one, and the share of a copy is the first over the longest. It is a limit from
above: latencies of instructions, banks of shared memory and caches only make it worse.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import re
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch
from cuda_resources import name_and_arguments, nvcc_version
from gpus import GPUS, ISSUES, WARP, Gpu
from launches import Case, Launch, launches
from sass import Code, demangled, find_cuobjdump, functions
from sass_walk import Launch as Start
from sass_walk import Path as Walked
from sass_walk import Walk

from vaal_ext import _C
from vaal_ext.ops import _library

TABLE = Path(__file__).resolve().parents[2] / "csrc" / "cuda" / "roofline.csv"
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
KEY = ("op", "path", "dtype", "cols", "kernel")
CELL = "instructions bytes | blocks bytes_in_flight | bound_by share_of_copy"
LOGITS = ("symmetric_kl", "symmetric_kl_direction", "symmetric_kl_backward")
FISHER = ("fisher_product", "fisher_direction")
IMAGES = ("perturb", "random_perturb", "deepfool_step")


def cases(dtype: torch.dtype) -> list[Case]:
    found = []
    for op in (*LOGITS, *FISHER, "posterior_summary", *IMAGES):
        full = sorted(32 * n for n in packs(op, dtype))
        long = (3072, 150528) if op in IMAGES else (1000, 10000)
        found += [Case(op, dtype, cols) for cols in (*full, *long)]
        if op in (*LOGITS, "posterior_summary"):
            found.append(Case(op, dtype, 128256, few_rows=True))
        if op == "symmetric_kl_direction":
            found.append(Case(op, dtype, 1000, smoothed=True))
    return found


def packs(op: str, dtype: torch.dtype) -> set[int]:
    """How many elements a thread may hold."""
    name = str(dtype).removeprefix("torch.")
    return {_C.launch_plan(op, 1000, cols, name)["items_per_thread"] for cols in (1, 1000)}


@dataclasses.dataclass(frozen=True)
class Measured:
    """One launch on one GPU, each number for one element but `blocks` and `in_flight`."""

    walked: Walked
    instructions: float
    bytes: float
    blocks: int  # that fit on a multiprocessor
    in_flight: int  # bytes of a multiprocessor
    seconds: dict[str, float]  # of an element, by what it waits for

    @property
    def bound_by(self) -> str:
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def share(self) -> float:
        return self.seconds["bytes"] / max(self.seconds.values())


def constants(gpu: Gpu, launch: Launch) -> dict[int, int]:
    words = {at: struct.pack("<3I", n, 1, 1) for at, n in zip(
        gpu.shape, (launch.threads, launch.blocks), strict=True)}  # fmt: skip
    words[gpu.parameters] = launch.parameters
    return {at + i: byte for at, content in words.items() for i, byte in enumerate(content)}


def measure(
    code: Code, gpu: Gpu, launch: Launch, elements: int, registers: int, static: int, *, rare=False
) -> Measured:
    start = Start(constants(gpu, launch), min(WARP, launch.threads - WARP))
    walked = Walk(code, start, rare=rare).path
    scale = launch.blocks * launch.threads / elements
    counted = Counter()
    for at, times in walked.issued.items():
        counted[unit(code.at[at].base)] += times * scale
    moved = walked.moved * scale
    blocks = gpu.resident(launch.threads, registers, launch.shared_bytes + static)
    in_flight = blocks * launch.threads * walked.in_flight
    cycles = gpu.multiprocessors * gpu.clock
    by_bytes = moved / gpu.copy_rate
    seconds = {
        "bytes": by_bytes,
        "issue": counted.total() / (ISSUES * WARP * cycles),
        "flight": by_bytes * max(1.0, gpu.flight / in_flight) if in_flight else 0.0,
        "special": counted["special"] / (gpu.special_lanes * cycles),
        "float64": counted["float64"] / (gpu.double_lanes * cycles),
    }
    return Measured(walked, counted.total(), moved, blocks, in_flight, seconds)


def unit(opcode: str) -> str:
    if opcode == "MUFU":
        return "special"
    return "float64" if opcode in ("DADD", "DMUL", "DFMA", "DSETP") else "any"


@functools.cache
def instance(function: str) -> str:
    """fisher_stream<float>, of a mangled kernel. Compilers may spell its parameters differently."""
    name, arguments = name_and_arguments(demangled([function])[0])
    return f"{name}<{arguments.replace('vaal::', '')}>"


class Binary:
    """The kernels of a file for one architecture, with what they take of a multiprocessor."""

    def __init__(self, path: Path, architecture: str) -> None:
        self._found = {instance(name): code for name, code in functions(path, architecture)}
        self._graphs: dict[str, Code] = {}
        done = subprocess.run(
            [find_cuobjdump(), "-res-usage", "-arch", architecture, str(path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        usage = re.findall(r"Function (\S+):\s*REG:(\d+).*?SHARED:(\d+)", done.stdout + done.stderr)
        # Registers of a thread, static shared memory of a block.
        self.usage = {instance(name): (int(each), int(shared)) for name, each, shared in usage}

    def __contains__(self, kernel: str) -> bool:
        return kernel in self._found

    def code(self, kernel: str) -> Code:
        if kernel not in self._graphs:
            self._graphs[kernel] = Code(self._found[kernel])
        return self._graphs[kernel]


@dataclasses.dataclass(frozen=True)
class Line:
    """What one line of the table is about: a kernel that a case launches."""

    case: Case
    path: str
    kernel: str
    launch: Launch
    elements: int

    @property
    def key(self) -> tuple[str, ...]:
        dtype = str(self.case.dtype).removeprefix("torch.")
        return self.case.op, self.path, dtype, str(self.case.cols), self.kernel

    def measured(self, binary: Binary, gpu: str, *, rare: bool = False) -> Measured:
        usage = binary.usage[self.kernel]
        code = binary.code(self.kernel)
        return measure(code, GPUS[gpu], self.launch, self.elements, *usage, rare=rare)


def lines_of(case: Case, binary: Binary, gpu: Gpu) -> list[Line]:
    """One for each kernel of the binary that the case launches."""
    found, plan, rows = launches(case, gpu)
    path = f"{plan.path}, smoothing" if case.smoothed else plan.path
    lines = [Line(case, path, instance(one.kernel), one, rows * case.cols) for one in found]
    return [line for line in lines if line.kernel in binary]


def cell(measured: Measured) -> str:
    return (
        f"{measured.instructions:.1f} {measured.bytes:.1f} | {measured.blocks} {measured.in_flight}"
        f" | {measured.bound_by} {measured.share:.2f}"
    )


Table = dict[tuple[str, ...], dict[str, str]]  # KEY → architecture → cell


def measured_table(library: Path, architectures: list[str]) -> Table:
    found: Table = {}
    for gpu in architectures:
        binary = Binary(library, gpu)
        for case in [case for dtype in DTYPES for case in cases(dtype)]:
            for line in lines_of(case, binary, GPUS[gpu]):
                found.setdefault(line.key, {})[gpu] = cell(line.measured(binary, gpu))
    return found


def read_table() -> tuple[str, Table]:
    """The nvcc that the table is for, and the table."""
    first, _, *lines = TABLE.read_text().splitlines()
    rows = csv.DictReader(lines)
    return first.removeprefix("# nvcc "), {
        tuple(row.pop(name) for name in KEY): {gpu: text for gpu, text in row.items() if text}
        for row in rows
    }


def write_table(version: str, found: Table) -> None:
    built = [gpu for gpu in GPUS if any(gpu in row for row in found.values())]
    with open(TABLE, "w", newline="") as file:
        file.write(f"# nvcc {version}\n# {CELL}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*KEY, *built])
        for key in sorted(found, key=lambda key: (*key[:3], int(key[3]), key[4])):
            writer.writerow([*key, *(found[key].get(gpu, "") for gpu in built)])


def built_architectures() -> list[str]:
    numbers = [name.removesuffix("+PTX") for name in _C.build_config()["cuda_architectures"]]
    return [name for name in GPUS if name[3:] in {number.replace(".", "") for number in numbers}]


def print_lines(args: argparse.Namespace) -> None:
    binary = Binary(args.binary, args.arch)
    for case in [case for dtype in DTYPES for case in cases(dtype)]:
        if args.cols:
            case = dataclasses.replace(case, cols=args.cols)
        for line in lines_of(case, binary, GPUS[args.arch]):
            if not all(word in " ".join(line.key) for word in args.words):
                continue
            measured = line.measured(binary, args.arch, rare=args.rare)
            print(*line.key, "|", cell(measured))
            if args.blocks:
                print_blocks(binary.code(line.kernel), measured, line.launch)


def print_blocks(code: Code, measured: Measured, launch: Launch) -> None:
    """Every basic block that was gone through: how often, what it is made of, how it ends."""
    issued = measured.walked.issued
    print(f"  {launch.blocks} blocks of {launch.threads} threads, {issued.total()} a warp")
    for start, block in code.blocks.items():
        times = issued[start]
        if not times:
            continue
        kinds = Counter(one.base for one in block)
        most = " ".join(f"{kind}:{n}" for kind, n in kinds.most_common(8))
        why = measured.walked.choices.get(block[-1].at, "")
        print(f"  {start:#07x} {times:4} x {len(block):4} = {times * len(block):6}  {most}  {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("binary", type=Path, nargs="?", help=".so, .o or .cubin; none: the table")
    parser.add_argument("words", nargs="*", help="all of them in the line or the kernel's name")
    parser.add_argument("--arch", default="sm_90", choices=GPUS)
    parser.add_argument("--cols", type=int, help="rows of this length instead")
    parser.add_argument("--rare", action="store_true", help="rows of the rarer kind")
    parser.add_argument("--blocks", action="store_true", help="the basic blocks too")
    args = parser.parse_args()
    if args.binary:
        return print_lines(args)
    nvcc = _C.build_config()["nvcc"]
    if not nvcc or not _library.CUDA_LIBRARY.exists():
        sys.exit("_ops_cuda is not built here: VAAL_CUDA=1 python setup.py build_ext --inplace")
    found = measured_table(_library.CUDA_LIBRARY, built_architectures())
    write_table(nvcc_version(nvcc), found)
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
