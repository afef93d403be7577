"""Builds the processes that run kernels under the sanitizers, with ninja, below build/sanitized."""

from __future__ import annotations

import fcntl
import os
import runpy
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "sanitized"
SETUP = runpy.run_path(str(ROOT / "setup.py"))  # its flags and functions; it builds nothing here
words, paths = SETUP["words"], SETUP["paths"]

FLAGS = ["-O1", "-g1", "-Wno-unknown-pragmas", "-Wno-psabi"]
FLAGS += ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
# Checks as calls instead of in place, which the compiler takes half as long over, and those of
# UBSan left out that ASan makes as well: of null pointers and of the size of objects.
FLAGS += ["--param=asan-instrumentation-with-call-threshold=0"]
FLAGS += ["-fno-sanitize=null,object-size"]
FLAGS += ["-U_FORTIFY_SOURCE"]  # it takes the fibres' jumps for stack smashing
RULES = [
    "rule cxx\n  depfile = $out.d\n  deps = gcc",
    "  command = g++ -MMD -MF $out.d $flags -c $in -o $out",
    "rule link\n  command = g++ $flags -o $out $in",
]


class Program:
    """An executable, and the objects that it is made of: {name: (source, flags)}."""

    def __init__(self, name: str, objects: dict[str, tuple[Path, list[str]]]) -> None:
        self.path = BUILD / name
        self.objects = {"runner.o": (HERE / "runner.cpp", ["-std=c++17"]), **objects}


def build(name: str, programs: list[Program]) -> None:
    """Brings the programs up to date, with two jobs; `name` is that of the ninja file."""
    lines, objects = list(RULES), {}
    for program in programs:
        objects.update(program.objects)
        lines.append(f"build {paths([program.path])}: link {paths(program.objects)}")
        lines.append(f"  flags = {words(FLAGS)}")
    for target, (source, flags) in objects.items():
        lines.append(f"build {target}: cxx {paths([source])}")
        lines.append(f"  flags = {words(FLAGS + flags)}")
    BUILD.mkdir(parents=True, exist_ok=True)
    import ninja

    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs may build at once
        write_if_changed(BUILD / name, "\n".join(lines) + "\n")
        command = [os.path.join(ninja.BIN_DIR, "ninja"), "-C", str(BUILD), "-f", name, "-j", "2"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the kernels do not compile with g++:\n{done.stdout}{done.stderr}")


def write_if_changed(path: Path, text: str) -> None:
    """Leaves the time of an unchanged file alone, by which ninja goes."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
