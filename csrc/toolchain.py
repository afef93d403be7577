"""What a build finds on this machine: torch, the compilers, the GPU architectures to compile for.

setup.py asks here. What is missing ends the build with one sentence, before anything is compiled.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

COMPILERS = "g++ 11 or newer, or clang++ 14 or newer"
DEFAULT_ARCHITECTURES = ["7.5", "8.0", "8.6", "9.0", "10.0", "12.0"]  # all
# The names that torch's own builds take for a generation.
GENERATIONS = {
    "Turing": "7.5",
    "Ampere": "8.0 8.6",
    "Ada": "8.9",
    "Hopper": "9.0",
    "Blackwell": "10.0 12.0",
}


def need_torch() -> ModuleType:
    advice = (
        "vaal_ext is built against the torch that you run. Type: pip install 'torch>=2.11' "
        "setuptools ninja pybind11 && pip install --no-build-isolation . (or set "
        "VAAL_BUILD=reference, which compiles nothing and is slower)"
    )
    try:
        import torch
    except ImportError:
        sys.exit(f"No torch here. {advice}")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
        sys.exit(f"torch {torch.__version__} is too old. {advice}")
    return torch


def find_nvcc() -> tuple[str | None, str]:
    """The nvcc to use and, where there is none to use, why."""
    wanted = os.environ.get("VAAL_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        sys.exit(f"VAAL_CUDA must be 0, 1 or auto, got {wanted!r}")
    if wanted == "0":
        return None, "VAAL_CUDA=0 says so"
    if sys.platform == "win32":
        return None, "nobody has tried it on Windows"
    home = os.environ.get("CUDA_HOME")
    found = str(Path(home, "bin", "nvcc")) if home else "nvcc"
    nvcc = shutil.which(found)
    if nvcc is None and wanted == "1":
        sys.exit(f"VAAL_CUDA=1, but there is no nvcc ({found}): put it on PATH or set CUDA_HOME")
    return nvcc, f"there is no nvcc ({found})" if nvcc is None else ""


def cxx_command() -> list[str]:
    """The C++ compiler as a list of words: "ccache g++" is two, a path with blanks is one."""
    asked = os.environ.get("CXX", "clang++" if sys.platform == "win32" else "c++")
    command = [asked] if shutil.which(asked) else shlex.split(asked)
    if not command or shutil.which(command[0]) is None:
        sys.exit(
            f"No C++ compiler ({asked}): install {COMPILERS}, or set CXX; or set "
            "VAAL_BUILD=reference, which compiles nothing and is slower"
        )
    return command


def cxx_name(command: list[str]) -> str:
    """What the C++ compiler is, say "g++ 12.2.0"; ends the build if it is too old."""
    asked = [*command, "-dM", "-E", "-x", "c++", os.devnull]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    macro = dict(re.findall(r"^#define (\w+) (.*)$", shown, re.MULTILINE))
    clang = "__clang_major__" in macro
    fields = [f"__clang_{part}__" for part in ("major", "minor", "patchlevel")]
    fields = fields if clang else ["__GNUC__", "__GNUC_MINOR__", "__GNUC_PATCHLEVEL__"]
    version = [int(macro.get(field, 0)) for field in fields]
    name = f"{'clang++' if clang else 'g++'} {'.'.join(map(str, version))}"
    if version[0] < (14 if clang else 11):
        found = name if version[0] else "neither g++ nor clang++"
        sys.exit(f"{shlex.join(command)} is {found}: install {COMPILERS}, or set CXX")
    return name


def asked_architectures() -> tuple[str, list[str]]:
    """The variable that names the architectures, and its words; ["all"] where none is set."""
    for variable in ("VAAL_CUDA_ARCH", "TORCH_CUDA_ARCH_LIST"):
        asked = [word for word in re.split(r"[;,\s]+", os.environ.get(variable, "")) if word]
        if asked:
            return variable, asked
    return "VAAL_CUDA_ARCH", ["all"]


def cuda_architectures(nvcc: str) -> tuple[list[tuple[str, bool]], str]:
    """[(architecture, also as PTX)] to compile for; where there is none, why.

    There is none only for VAAL_CUDA_ARCH=native on a machine without a GPU that nvcc knows, and
    VAAL_CUDA=1 makes that an error.
    """
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    known = {re.sub(r"compute_(\d+)(\d)", r"\1.\2", line) for line in listed.stdout.split()}
    variable, asked = asked_architectures()
    if variable == "VAAL_CUDA_ARCH" and [word.lower() for word in asked] == ["native"]:
        found = native_architectures()
        chosen = [number for number in found if number in known]
        seen = f"a GPU of {', '.join(found)}, which nvcc does not know" if found else "no GPU here"
        why = "" if chosen else f"VAAL_CUDA_ARCH=native and torch sees {seen}"
        if why and os.environ.get("VAAL_CUDA") == "1":
            sys.exit(f"VAAL_CUDA=1, but {why}: name the architectures, as 9.0, or all")
        return [(number, False) for number in chosen], why

    chosen: dict[str, bool] = {}  # a dictionary keeps the order and each architecture once
    for word in asked:
        name, ptx = word.removesuffix("+PTX"), word.endswith("+PTX")
        if name.lower() == "all":
            numbers = [a for a in DEFAULT_ARCHITECTURES if a in known]
            numbers[-1:] = [f"{a}+PTX" for a in numbers[-1:]]  # for GPUs that are newer still
        elif name.lower() == "native":
            numbers = native_architectures()
            if not numbers:
                sys.exit(f"{variable}: native, but torch sees no GPU here: give a number, as 9.0")
        else:
            numbers = GENERATIONS.get(name.capitalize(), name).split()
        for number in numbers:
            number, with_ptx = number.removesuffix("+PTX"), ptx or number.endswith("+PTX")
            # 9.0a and 10.0f are of one architecture or family alone; nvcc lists the number.
            if re.sub("[af]$", "", number) not in known:
                sys.exit(
                    f"{variable}: this nvcc does not know {number}. Give numbers "
                    f"({', '.join(sorted(known, key=float))}), names "
                    f"({', '.join(GENERATIONS)}), native or all, with ; between"
                )
            chosen[number] = chosen.get(number, False) or with_ptx
    return list(chosen.items()), ""


def native_architectures() -> list[str]:
    """The architectures of the GPUs in this machine."""
    import torch

    numbers = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return [f"{major}.{minor}" for major, minor in sorted(numbers)]


def code_flags(architectures: Iterable[tuple[str, bool]]) -> list[str]:
    """nvcc's flags for them.

    nvcc goes through the source once for every *virtual* architecture, and that takes about as long
    as the machine code. The kernels use nothing newer than 8.0 or, for 10.0 and later (where nvcc
    pairs float32 operations), than 10.0: the intermediate code of 8.0, 8.6 and 9.0 is one text but
    for the number in its header, and so is that of 10.0 and 12.0. Hence each of the generations 7,
    8 to 9, and 10 and later is gone through once, for the oldest of it that is asked for.
    """
    generations: dict[str, list[tuple[str, bool]]] = {}
    for architecture, ptx in sorted(architectures, key=lambda pair: number_of(pair[0])):
        major = number_of(architecture)[0]
        alone = not architecture[-1].isdigit()  # 9.0a is for itself
        generation = architecture if alone else "10" if major >= 10 else "8" if major >= 8 else "7"
        generations.setdefault(generation, []).append((architecture, ptx))
    flags = []
    for members in generations.values():
        virtual = f"compute_{members[0][0].replace('.', '')}"
        flags += [f"-gencode=arch={virtual},code=sm_{a.replace('.', '')}" for a, _ in members]
        # PTX for the oldest runs wherever that for the one asked for does.
        if any(ptx for _, ptx in members):
            flags.append(f"-gencode=arch={virtual},code={virtual}")
    return flags


def number_of(architecture: str) -> tuple[int, int]:
    """(9, 0) of "9.0" and of "9.0a"."""
    major, minor = re.match(r"(\d+)\.(\d+)", architecture).groups()
    return int(major), int(minor)
