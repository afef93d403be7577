"""Builds what runs kernels, with ninja: below build/ a folder for each toolchain."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import runpy
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
SETUP = runpy.run_path(str(ROOT / "setup.py"))  # its flags and functions; it builds nothing here
words, paths = SETUP["words"], SETUP["paths"]

FLAGS = ["-O1", "-g1", "-Wno-unknown-pragmas", "-Wno-psabi"]
FLAGS += ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
# Checks as calls instead of in place, which the compiler takes half as long over, and those of
# UBSan left out that ASan makes as well: of null pointers and of the size of objects.
FLAGS += ["--param=asan-instrumentation-with-call-threshold=0"]
FLAGS += ["-fno-sanitize=null,object-size"]
FLAGS += ["-U_FORTIFY_SOURCE"]  # it takes the fibres' jumps for stack smashing


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """A compiler, its flags, and where its programs lie and what runs them.

    kernel_flags: those of the CPU kernels besides setup.py's.
    machine: of the programs, as platform.machine() names it; "" is this one.
    """

    name: str
    cxx: str
    flags: tuple[str, ...]
    kernel_flags: tuple[str, ...] = ()
    launcher: str = ""
    machine: str = ""
    package: str = ""  # Debian's, which brings what is needed

    @property
    def folder(self) -> Path:
        return ROOT / "build" / self.name

    def missing(self) -> str:
        """What is not here, or ""."""
        needed = [self.cxx, self.launcher] if self.launcher else [self.cxx]
        absent = [name for name in needed if shutil.which(name) is None]
        advice = f" (apt-get install {self.package})" if self.package else ""
        return f"needs {' and '.join(absent)}{advice}" if absent else ""


# No checks of the stack in the CPU kernels, where UBSan watches the bounds of arrays: they keep
# registers in arrays, and with the checks the compiler takes minutes.
SANITIZED = Toolchain("sanitized", "g++", tuple(FLAGS), ("--param=asan-stack=0",))
# For Python's own process, which no sanitizer watches.
IN_PROCESS = Toolchain("in-process", "g++", ("-O1", "-fPIC", "-fvisibility=hidden"))
CLANG = Toolchain("clang", "clang++", ("-O3",), package="clang")
# -O2, which takes half as long as -O3. Static: the libraries of aarch64 are not where qemu looks.
AARCH64 = Toolchain(
    "aarch64",
    "aarch64-linux-gnu-g++",
    ("-O2", "-static"),
    launcher="qemu-aarch64-static",
    machine="aarch64",
    package="g++-aarch64-linux-gnu qemu-user-static",
)
BUILD = SANITIZED.folder


class Program:
    """An executable, and the objects that it is made of: {name: (source, flags)}."""

    def __init__(
        self,
        name: str,
        objects: dict[str, tuple[Path, list[str]]],
        toolchain: Toolchain = SANITIZED,
    ) -> None:
        self.toolchain = toolchain
        self.path = toolchain.folder / name
        self.objects = {"runner.o": (HERE / "runner.cpp", ["-std=c++17"]), **objects}
        self.link: list[str] = []

    def command(self) -> list[str]:
        """What starts it."""
        launcher = self.toolchain.launcher
        return [*([shutil.which(launcher)] if launcher else []), str(self.path)]


class Library:
    """A library that Python loads, the objects that it is made of, and the linker's flags."""

    def __init__(
        self,
        name: str,
        objects: dict[str, tuple[Path, list[str]]],
        toolchain: Toolchain,
        link: list[str],
    ) -> None:
        self.toolchain = toolchain
        self.path = toolchain.folder / name
        self.objects = objects
        self.link = ["-shared", *link]


def build(name: str, programs: Sequence[Program | Library]) -> None:
    """Brings programs of one toolchain up to date, with two jobs; `name` is the ninja file's."""
    toolchain = programs[0].toolchain
    cxx, folder, flags = toolchain.cxx, toolchain.folder, list(toolchain.flags)
    lines = [
        "rule cxx\n  depfile = $out.d\n  deps = gcc",
        f"  command = {cxx} -MMD -MF $out.d $flags -c $in -o $out",
        f"rule link\n  command = {cxx} -o $out $in $flags",
    ]
    objects = {}
    for program in programs:
        objects.update(program.objects)
        lines.append(f"build {paths([program.path])}: link {paths(program.objects)}")
        lines.append(f"  flags = {words(flags + program.link)}")
    for target, (source, own) in objects.items():
        lines.append(f"build {target}: cxx {paths([source])}")
        lines.append(f"  flags = {words(flags + own)}")
    folder.mkdir(parents=True, exist_ok=True)
    import ninja

    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs may build at once
        write_if_changed(folder / name, "\n".join(lines) + "\n")
        command = [os.path.join(ninja.BIN_DIR, "ninja"), "-C", str(folder), "-f", name, "-j", "2"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the kernels do not compile with {cxx}:\n{done.stdout}{done.stderr}")


def write_if_changed(path: Path, text: str) -> None:
    """Leaves the time of an unchanged file alone, by which ninja goes."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
