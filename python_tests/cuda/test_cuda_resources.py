"""What nvcc made of the CUDA kernels: registers, spills, and the machine code of memory accesses.

csrc/cuda/resources.csv holds what every kernel takes. `python python_tests/cuda_resources.py`
rewrites it after a change that is meant. A number below the table's fails like one above: a table
that is too high would let the next change take back what was gained.
"""

import functools
import importlib.util
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from cuda_resources import REPORT, demangled, measured, name_and_arguments, nvcc_version, read_table

from vaal_ext import _C
from vaal_ext.ops import _library

CONFIG = _C.build_config()
pytestmark = pytest.mark.skipif(
    not _library.CUDA_LIBRARY.exists(), reason=f"_ops_cuda is not built: {CONFIG['why_no_cuda']}"
)


def test_no_kernel_spills():
    report = REPORT.read_text()
    functions = re.findall(r"Compiling entry function '\S+' for 'sm_\d+'", report)
    usage = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report
    )
    assert len(functions) > 100
    assert len(usage) >= len(functions)
    assert set(usage) == {("0", "0", "0")}


def test_resources_are_those_of_the_table():
    version, table = read_table()
    if nvcc_version(CONFIG["nvcc"]) != version:
        pytest.skip(f"the table is for nvcc {version}, not {nvcc_version(CONFIG['nvcc'])}")
    found = measured(REPORT.read_text())
    built = {name for row in found.values() for name in row}
    differences = [
        f"{'<'.join(key)}> {name}: {found.get(key, {}).get(name)}, in the table {row.get(name)}"
        for key in sorted(found.keys() | table.keys())
        for row in [table.get(key, {})]
        for name in sorted(built & (row.keys() | found.get(key, {}).keys()))
        if found.get(key, {}).get(name) != row.get(name)
    ]
    assert not differences, (
        "\n".join(differences) + "\nIf that is meant: python python_tests/cuda_resources.py"
    )


def find_cuobjdump() -> str | None:
    """That of a toolkit, or the one in Triton's wheel."""
    triton = importlib.util.find_spec("triton")
    beside = Path(triton.origin).parent / "backends" / "nvidia" / "bin" if triton else Path()
    return shutil.which("cuobjdump") or shutil.which("cuobjdump", path=beside)


@functools.cache
def machine_code() -> dict[str, dict[str, int]]:
    """For each kernel of sm_90 how often LDG.E.128, STG.E.128, LDL and STL occur."""
    tool = find_cuobjdump()
    if tool is None:
        pytest.skip("there is no cuobjdump, on PATH or in Triton's wheel")
    if "9.0" not in CONFIG["cuda_architectures"]:
        pytest.skip("_ops_cuda is built without sm_90")
    found: dict[str, dict[str, int]] = {}
    with subprocess.Popen(
        [tool, "-sass", "-arch", "sm_90", _library.CUDA_LIBRARY], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if "Function : " in line:
                counts = found.setdefault(line.split("Function : ")[1].strip(), defaultdict(int))
            elif instruction := re.search(r"\b(LDG|STG)\.E(?:\.EF)?\.128|\b(LDL|STL)\b", line):
                counts[instruction[1] or instruction[2]] += 1
    assert process.returncode == 0, "cuobjdump failed"
    return dict(zip(demangled(list(found)), found.values(), strict=True))


def test_no_kernel_uses_local_memory():
    assert len(machine_code()) > 100
    assert not [name for name, counts in machine_code().items() if counts["LDL"] or counts["STL"]]


# Kernels that move a row: part of the template arguments → whether they load and store packs.
MOVES = {
    ("kl_registers", "(vaal::Op)0"): (True, True),  # of the way for any row, which serves three ops
    ("kl_registers", "(vaal::Op)1"): (True, True),
    ("kl_registers", "(vaal::Op)2"): (True, True),
    ("kl_stream", ""): (True, True),
    ("kl_split", "(vaal::KlStep)0"): (True, False),
    ("kl_split", "(vaal::KlStep)3"): (True, True),
    ("perturb_registers", ""): (True, True),
    ("perturb_split_norm", ""): (True, False),
    ("perturb_split_add", ""): (True, True),
    ("random_perturb_registers", ""): (True, True),
    ("random_perturb_split_add", ""): (True, True),
    ("summary_rows", ""): (True, False),
    ("deepfool_norms", ""): (True, False),
    ("deepfool_move", ""): (True, True),
}


@pytest.mark.parametrize(("kernel", "arguments"), MOVES)
def test_rows_move_in_packs_of_16_bytes(kernel, arguments):
    loads, stores = MOVES[kernel, arguments]
    instances = 0
    for function, counts in machine_code().items():
        name, template = name_and_arguments(function)
        if name == kernel and template.startswith(arguments):
            instances += 1
            assert bool(counts["LDG"]) >= loads, function
            assert bool(counts["STG"]) == stores, function
    assert instances >= 4  # the storage types
