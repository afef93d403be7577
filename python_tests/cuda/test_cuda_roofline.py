"""What binds the CUDA kernels: that csrc/cuda/roofline.csv says it, and how it is worked out.

`PYTHONPATH=python_tests python python_tests/cuda/cuda_roofline.py` rewrites the table after a
change that is meant. A number below the table's fails like one above, as with the registers.
"""

from __future__ import annotations

import shutil
import struct

import cuda_resources
import pytest
from cuda_roofline import GPUS, built_architectures, measure, measured_table, read_table
from launches import Launch
from sass import Code, find_cuobjdump, read_instruction

from vaal_ext import _C
from vaal_ext.ops import _library


@pytest.mark.slow
@pytest.mark.parametrize("gpu", GPUS)
def test_the_table_is_what_the_machine_code_says(gpu):
    if not _library.CUDA_LIBRARY.exists():
        pytest.skip(f"_ops_cuda is not built: {_C.build_config()['why_no_cuda']}")
    for tool, found in (("cuobjdump", find_cuobjdump()), ("g++", shutil.which("g++"))):
        if found is None:
            pytest.skip(f"needs {tool}")
    if gpu not in built_architectures():
        pytest.skip(f"_ops_cuda is built without {gpu}")
    version, table = read_table()
    if cuda_resources.nvcc_version(_C.build_config()["nvcc"]) != version:
        pytest.skip(f"the table is for nvcc {version}")
    found = measured_table(_library.CUDA_LIBRARY, [gpu])
    pairs = {
        key: (found.get(key, {}).get(gpu), table.get(key, {}).get(gpu))
        for key in sorted(found.keys() | table.keys())
    }
    differences = [
        f"{' '.join(key)}: {now}, in the table {before}"
        for key, (now, before) in pairs.items()
        if now != before
    ]
    assert not differences, (
        "\n".join(differences)
        + "\nIf that is meant: PYTHONPATH=python_tests python python_tests/cuda/cuda_roofline.py"
    )


@pytest.mark.parametrize(
    ("gpu", "threads", "registers", "shared", "blocks"),
    [
        ("sm_90", 1024, 32, 0, 2),  # threads
        ("sm_86", 1024, 32, 0, 1),
        ("sm_75", 128, 32, 0, 8),
        ("sm_90", 32, 16, 0, 32),  # blocks
        ("sm_120", 32, 16, 0, 24),
        ("sm_90", 384, 128, 0, 1),  # registers: 16 warps of 128, and 12 a block
        ("sm_90", 384, 80, 0, 2),  # 24 warps
        ("sm_90", 384, 81, 0, 1),  # 88, in grains of 8: 4 · 5 warps
        ("sm_90", 256, 32, 113 * 1024, 2),  # shared memory: 228 KB, and 1 KB kept of each block
        ("sm_90", 256, 32, 114 * 1024, 1),
        ("sm_80", 256, 32, 163 * 1024, 1),
        ("sm_86", 256, 32, 100 * 1024, 0),
        ("sm_75", 256, 32, 32 * 1024, 2),
    ],
)
def test_blocks_that_fit(gpu, threads, registers, shared, blocks):
    assert GPUS[gpu].resident(threads, registers, shared) == blocks


def code(*lines: str) -> Code:
    return Code([read_instruction(16 * at, line) for at, line in enumerate((*lines, "EXIT"))])


def measured(gpu: str, lines: list[str], *, registers: int = 32, elements: int = 128):
    launch = Launch("", 1, 128, 0, struct.pack("<q", 1 << 40))
    return measure(code(*lines), GPUS[gpu], launch, elements, registers, 0)


def test_an_h100_issues_118_instructions_an_element_in_the_time_of_12_bytes():
    pack = ["LDG.E.128 R4, [R2.64]", "LDG.E.128 R8, [R2.64]", "STG.E.128 [R2.64], R4"]
    few = measured("sm_90", pack + ["FADD R4, R4, R5"] * (470 - 4), elements=512)
    assert (few.bytes, few.instructions, few.bound_by, few.share) == (12, 117.5, "bytes", 1)
    many = measured("sm_90", pack + ["FADD R4, R4, R5"] * (2 * 474 - 4), elements=512)
    assert many.bound_by == "issue"
    assert many.share == pytest.approx(0.5, abs=0.002)


def test_few_bytes_in_flight_bind():
    pack = ["LDG.E.128 R4, [R2.64]", "FADD R4, R4, R5"]
    full, half = measured("sm_90", pack), measured("sm_90", pack, registers=255)
    assert (full.blocks, half.blocks) == (16, 2)
    assert half.in_flight == 2 * 128 * 16
    assert half.bound_by == "flight"
    assert half.share == pytest.approx(half.in_flight / GPUS["sm_90"].flight)


def test_doubles_and_exponentials_have_fewer_lanes():
    loads = ["LDG.E.128 R4, [R2.64]"]
    found = measured("sm_86", loads + ["DADD R8, R8, R8"] * 100)
    assert found.bound_by == "float64"
    cycles = 72 * 1.695e9
    assert found.seconds["float64"] == pytest.approx(100 / (2 * cycles))
    found = measured("sm_90", loads + ["MUFU.EX2 R8, R8"] * 200)
    assert found.bound_by == "special"
    assert found.seconds["special"] == pytest.approx(200 / (16 * 132 * 1.755e9))


def test_the_table_has_every_kernel_of_the_table_of_registers():
    measured_kernels = {key[4].partition("<")[0] for key in read_table()[1]}
    assert {kernel for kernel, _ in cuda_resources.read_table()[1]} <= measured_kernels
