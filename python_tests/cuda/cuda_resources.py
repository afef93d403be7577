"""What the CUDA kernels take of a multiprocessor, from the build's report.

python python_tests/cuda/cuda_resources.py      rewrites csrc/cuda/resources.csv for this nvcc

The table has one line a kernel template and type of the arithmetic: the number of its instances,
the most registers a thread of any of them uses on each architecture, and the most static shared
memory, stack and spilled bytes on any.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from vaal_ext import _C
from vaal_ext.ops import _library

TABLE = Path(__file__).resolve().parents[2] / "csrc" / "cuda" / "resources.csv"
REPORT = _library.CUDA_LIBRARY.parent / "_ops_cuda.resources.txt"
KEY = ("kernel", "arithmetic")
WORST = ("instances", "shared_bytes", "stack_bytes", "spill_bytes")


def nvcc_version(nvcc: str) -> str:
    """Such as "V13.0.88"."""
    done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True)
    return re.search(r"V\d+\.\d+\.\d+", done.stdout)[0]


def demangled(names: list[str]) -> list[str]:
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def name_and_arguments(function: str) -> tuple[str, str]:
    """("kl_split", "(vaal::KlStep)4, double") of a demangled kernel."""
    return re.search(r"vaal::(\w+)<(.*?)>\(", function).groups()


def measured(report: str) -> dict[tuple[str, str], dict[str, int]]:
    """(kernel, arithmetic) → the table's other columns, from the text that ptxas -v wrote."""
    entries = re.findall(
        r"Compiling entry function '(\S+)' for '(sm_\d+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s*\n"
        r"[^\n]*Used (\d+) registers([^\n]*)",
        report,
        re.S,
    )
    rows: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (_, architecture, stack, stores, loads, registers, rest), function in zip(
        entries, demangled([entry[0] for entry in entries]), strict=True
    ):
        name, arguments = name_and_arguments(function)
        row = rows[name, "double" if re.search(r"\bdouble\b", arguments) else "float"]
        shared = re.search(r"(\d+) bytes smem", rest)
        row["instances"] += architecture == entries[0][1]
        row["shared_bytes"] = max(row["shared_bytes"], int(shared[1]) if shared else 0)
        row["stack_bytes"] = max(row["stack_bytes"], int(stack))
        row["spill_bytes"] = max(row["spill_bytes"], int(stores), int(loads))
        row[architecture] = max(row[architecture], int(registers))
    return {key: dict(rows[key]) for key in sorted(rows)}


def read_table() -> tuple[str, dict[tuple[str, str], dict[str, int]]]:
    """The nvcc that the table is for, and the table as measured() gives it."""
    first, *lines = TABLE.read_text().splitlines()
    rows = {}
    for line in csv.DictReader(lines):
        key = tuple(line.pop(name) for name in KEY)
        rows[key] = {name: int(value) for name, value in line.items()}
    return first.removeprefix("# nvcc "), rows


def write_table(version: str, rows: dict[tuple[str, str], dict[str, int]]) -> None:
    architectures = sorted(
        {name for row in rows.values() for name in row if name.startswith("sm_")},
        key=lambda name: int(name[3:]),
    )
    with open(TABLE, "w", newline="") as file:
        file.write(f"# nvcc {version}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*KEY, *WORST, *architectures])
        for key, row in rows.items():
            writer.writerow([*key, *(row[name] for name in (*WORST, *architectures))])


def main() -> None:
    nvcc = _C.build_config()["nvcc"]
    if not nvcc or not REPORT.exists():
        sys.exit("_ops_cuda is not built here: VAAL_CUDA=1 python setup.py build_ext --inplace")
    write_table(nvcc_version(nvcc), measured(REPORT.read_text()))
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
