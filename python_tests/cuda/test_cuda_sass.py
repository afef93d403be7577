"""The count of instructions (sass_walk.py) on small kernels of which one knows what they do."""

from __future__ import annotations

import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from gpus import GPUS
from sass import Code, find_cuobjdump, functions
from sass_walk import TURNS, Launch, Walk

from vaal_ext import _C

KERNELS = Path(__file__).with_name("small_kernels.cu")
NVCC = _C.build_config()["nvcc"]
pytestmark = [
    pytest.mark.skipif(not NVCC, reason=f"needs nvcc: {_C.build_config()['why_no_cuda']}"),
    pytest.mark.skipif(find_cuobjdump() is None, reason="needs cuobjdump"),
    pytest.mark.slow,
]


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """{architecture: {name: Code}}."""
    binary = tmp_path_factory.mktemp("sass") / "small.fatbin"
    code = [f"-gencode=arch=compute_{name[3:]},code={name}" for name in GPUS]
    subprocess.run([NVCC, "-fatbin", "-O3", *code, "-o", binary, KERNELS], check=True)
    return {
        name: {kernel: Code(found) for kernel, found in functions(binary, name)} for name in GPUS
    }


@pytest.fixture(params=GPUS)
def walk(kernels, request):
    """walk(kernel, parameters, …): the Path, and how often each opcode was issued."""
    gpu = GPUS[request.param]

    def walked(kernel, parameters=b"", *, blocks=1, threads=64, thread=32, rare=False):
        constants = dict(enumerate(parameters, gpu.parameters))
        for at, number in zip(gpu.shape, (threads, blocks), strict=True):
            constants.update(enumerate(struct.pack("<3I", number, 1, 1), at))
        code = kernels[request.param][kernel]
        path = Walk(code, Launch(constants, thread), rare=rare).path
        issued = Counter()
        for at, times in path.issued.items():
            issued[code.at[at].base] += times
        return path, issued

    return walked


def pointer_and(form: str, *values: int) -> bytes:
    return struct.pack(f"<q{form}", 1 << 40, *values)


@pytest.mark.parametrize("turns", [0, 1, 2, 100])
def test_a_loop_turns_as_often_as_the_parameter_says(walk, turns):
    path, issued = walk("loop", pointer_and("i", turns))
    assert issued["FMUL"] == 3 * turns
    assert path.choices == {}
    # Nothing else in the loop but its count, the comparison and the jump.
    assert walk("loop", pointer_and("i", turns + 1))[0].instructions - path.instructions <= 6 or (
        turns == 0
    )


@pytest.mark.parametrize(
    ("a", "b", "c"),
    [(100, 7, 0), (100, 7, 80), (2**31 - 1, 2**27 - 1, 17), (-9, -2, 8), (3, 5, -40), (9, -5, 96)],
)
def test_integers_are_those_of_the_gpu(walk, a, b, c):
    turns = int(a / b) + (c >> 3)
    turns = max(0, -turns if c < 0 else turns)
    _, issued = walk("integers", pointer_and("iiq", a, b, c))
    assert issued["FMUL"] == turns


@pytest.mark.parametrize("cols", [64, 1000])
def test_a_row_is_gone_through_by_all_warps(walk, cols):
    path, issued = walk("rows", struct.pack("<qqi", 1 << 40, 5, cols), blocks=5, threads=128)
    turns = len(range(32, cols, 128))
    assert issued["FMUL"] == 2 * turns
    assert (path.loaded[4], path.stored[4]) == (4 * turns, 4 * turns)
    assert path.moved == 8 * turns
    _, again = walk("rows", struct.pack("<qqi", 1 << 40, 5, cols), blocks=2, threads=128)
    assert again["FMUL"] == 3 * issued["FMUL"]  # rows 0, 2 and 4


def test_the_slow_part_of_a_division_is_left_out(walk):
    path, issued = walk("cold", pointer_and(""))
    assert (issued["MUFU"], issued["CALL"], issued["FCHK"]) == (1, 0, 1)
    assert next(iter(path.choices.values())).startswith("slow path")


def test_a_piece_of_common_work_is_for_rare_rows(walk):
    _, issued = walk("reduction", pointer_and(""))
    assert (issued["SHFL"], issued["FMUL"]) == (5, 0)
    _, issued = walk("reduction", pointer_and(""), rare=True)
    assert (issued["SHFL"], issued["FMUL"]) == (10, 3)


def test_lanes_that_differ_go_both_ways(walk):
    path, issued = walk("lanes", pointer_and(""))
    assert issued["FMUL"] == 4
    assert issued["FADD"] == 30
    assert set(path.choices.values()) == {"both"}


def test_of_two_kinds_of_rows_the_cheaper_is_usual(walk):
    assert walk("kinds", pointer_and(""))[1]["FADD"] == 50
    assert walk("kinds", pointer_and(""), rare=True)[1]["FADD"] == 60


def test_a_loop_that_data_ends_turns_a_few_times(walk):
    assert walk("until", pointer_and(""))[1]["FMUL"] == TURNS


def test_bytes_in_flight_are_those_before_the_first_use(walk):
    path, _ = walk("together", struct.pack("<qq", 1 << 40, 1 << 41))
    assert path.loaded == {16: 4 * 16, 4: 4 * 4}
    assert path.moved == 4 * 16
    assert path.in_flight >= 64  # four packs; ptxas may bring forward what comes later
