"""Builds the three compiled parts of vaal_ext with ninja and prints its plan first.

_ops_cpu.so   the CPU kernels: C++, one object per instruction set, chosen at run time
_ops_cuda.so  the CUDA kernels, where an nvcc is found (VAAL_CUDA=auto); no GPU is needed
_C            pybind11: build facts and launch plans, for people and tests

The two libraries keep to LibTorch's stable ABI (torch 2.11): they hold no symbol of Python, at:: or
c10::, so one build serves every later torch.

Environment: VAAL_CUDA=0|1|auto, CUDA_HOME, MAX_JOBS, CXX ("ccache g++" too), and
TORCH_CUDA_ARCH_LIST as torch's own builds read it: "8.0;9.0a+PTX", "Hopper", "native".
"""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
STABLE_ABI = "0x020b000000000000"  # torch 2.11
DEFAULT_ARCHITECTURES = ["7.5", "8.0", "8.6", "9.0", "10.0", "12.0"]
# The names that torch's own builds take for a generation.
GENERATIONS = {
    "Turing": "7.5",
    "Ampere": "8.0 8.6",
    "Ada": "8.9",
    "Hopper": "9.0",
    "Blackwell": "10.0 12.0",
}
CPU_KERNELS = [
    "symmetric_kl",
    "posterior_summary",
    "fisher_product",
    "fisher_direction",
    "perturb",
    "normals",
    "table",
]
INSTRUCTION_SETS = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": [f"-mavx512{part}" for part in ("f", "dq", "bw", "vl")]
    + ["-mfma", "-mprefer-vector-width=512"],
}
CXX_FLAGS = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-DNDEBUG"]
# No fast-math: NaN and infinities keep their meaning. What is given up is errno and traps.
KERNEL_FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wall", "-Wextra"]
# The two about initialisation are raised by GCC 12's own AVX-512 header.
KERNEL_FLAGS += ["-Wno-psabi", "-Wno-unknown-pragmas"]
KERNEL_FLAGS += ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]


def need_torch():
    advice = (
        "vaal_ext is built against the torch that you run. Type: pip install 'torch>=2.11' "
        "setuptools ninja pybind11 && pip install --no-build-isolation ."
    )
    try:
        import torch
    except ImportError:
        sys.exit(f"No torch here. {advice}")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
        sys.exit(f"torch {torch.__version__} is too old. {advice}")
    return torch


def find_nvcc():
    """The nvcc to use and, where there is none to use, why."""
    wanted = os.environ.get("VAAL_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        sys.exit(f"VAAL_CUDA must be 0, 1 or auto, got {wanted!r}")
    if wanted == "0":
        return None, "VAAL_CUDA=0"
    home = os.environ.get("CUDA_HOME")
    found = str(Path(home, "bin", "nvcc")) if home else "nvcc"
    nvcc = shutil.which(found)
    if nvcc is None and wanted == "1":
        sys.exit(f"VAAL_CUDA=1, but there is no nvcc ({found}): put it on PATH or set CUDA_HOME")
    return nvcc, f"no nvcc ({found})" if nvcc is None else ""


def cxx_command():
    """The C++ compiler as a list of words: "ccache g++" is two, a path with blanks is one."""
    asked = os.environ.get("CXX", "c++")
    command = [asked] if shutil.which(asked) else shlex.split(asked)
    if not command or shutil.which(command[0]) is None:
        sys.exit(f"No C++ compiler ({asked}): install g++ 11 or newer, or set CXX")
    return command


def cuda_architectures(nvcc):
    """[(architecture, also as PTX)], as asked for or the default list, cut to what nvcc knows."""
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    known = {re.sub(r"compute_(\d+)(\d)", r"\1.\2", line) for line in listed.stdout.split()}
    asked = re.split(r"[;,\s]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip(";, "))
    if asked == [""]:
        chosen = [a for a in DEFAULT_ARCHITECTURES if a in known]
        return [(a, a == chosen[-1]) for a in chosen]
    chosen = {}  # a dictionary keeps the order and each architecture once
    for word in asked:
        name, ptx = word.removesuffix("+PTX"), word.endswith("+PTX")
        for architecture in GENERATIONS.get(name.capitalize(), name).split():
            for number in native_architectures() if architecture == "native" else [architecture]:
                # 9.0a and 10.0f are of one architecture or family alone; nvcc lists the number.
                if re.sub("[af]$", "", number) not in known:
                    sys.exit(
                        f"TORCH_CUDA_ARCH_LIST: this nvcc does not know {number}. Give numbers "
                        f"({', '.join(sorted(known, key=float))}), names "
                        f"({', '.join(GENERATIONS)}) or native, with ; between"
                    )
                chosen[number] = chosen.get(number, False) or ptx
    return list(chosen.items())


def native_architectures():
    """The architectures of the GPUs in this machine."""
    import torch

    numbers = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    if not numbers:
        sys.exit("TORCH_CUDA_ARCH_LIST=native, but torch sees no GPU here: give a number, as 9.0")
    return [f"{major}.{minor}" for major, minor in sorted(numbers)]


def words(flags):
    """Flags of a ninja file, which the shell below it reads as one word each."""
    return shlex.join(map(str, flags)).replace("$", "$$")


def paths(files):
    """Paths of a ninja file's build line; ninja quotes them for the shell where it writes $in."""
    return " ".join(re.sub(r"([$ :])", r"$\1", str(file)) for file in files)


class Plan:
    """What will be built, from what, and how."""

    def __init__(self):
        torch = need_torch()
        self.torch_version = torch.__version__
        self.include = Path(torch.__file__).parent / "include"
        self.torch_libs = Path(torch.__file__).parent / "lib"
        self.cxx = cxx_command()
        x86 = platform.machine() in ("x86_64", "AMD64")
        self.isas = list(INSTRUCTION_SETS) if x86 else ["portable"]
        self.nvcc, self.why_no_cuda = find_nvcc()
        self.architectures = cuda_architectures(self.nvcc) if self.nvcc else []
        self.jobs = os.environ.get("MAX_JOBS")

    def facts(self):
        names = [a + ("+PTX" if ptx else "") for a, ptx in self.architectures]
        return {
            "torch": self.torch_version,
            "stable_abi": "2.11",
            "cxx": shlex.join(self.cxx),
            "cpu_instruction_sets": self.isas,
            "nvcc": self.nvcc or "",
            "cuda_architectures": names,
            "why_no_cuda": self.why_no_cuda,
        }

    def show(self):
        facts = self.facts()
        print("vaal_ext build plan")
        print(f"  torch         {self.torch_version} (stable ABI of 2.11)")
        print(f"  _ops_cpu      {facts['cxx']}: {', '.join(self.isas)}")
        cuda = f"{self.nvcc}: {', '.join(facts['cuda_architectures'])}"
        print(f"  _ops_cuda     {cuda if self.nvcc else 'not built: ' + self.why_no_cuda}")
        print(f"  jobs          {self.jobs or 'all cores'} (MAX_JOBS)", flush=True)

    def ninja(self, build):
        """The build file: rules, one edge per object, one per library.

        A flag may hold anything, a path with blanks above all: hence `words` and `paths`.
        """
        lines = [
            "rule cxx\n  description = compile $out\n  depfile = $out.d\n  deps = gcc\n"
            "  command = $cxx -MMD -MF $out.d $flags -c $in -o $out",
            "rule link\n  description = link $out\n  command = $cxx -shared -o $out $in $flags",
            # The resource report of ptxas (registers, stack, spills) is kept beside the object.
            "rule nvcc\n  description = compile $out\n  depfile = $out.d\n  deps = gcc\n"
            "  command = $nvcc -MMD -MF $out.d $flags -c $in -o $out 2> $out.log "
            "|| (cat $out.log; exit 1)",
            "rule nvlink\n  description = link $out\n  command = $nvcc -shared -o $out $in $flags",
            "rule join\n  description = report $out\n  command = cat $flags > $out",
            f"cxx = {words(self.cxx)}",
            f"nvcc = {words([self.nvcc or ''])}",
        ]

        def edge(rule, out, sources, flags, implicit=""):
            lines.append(f"build {out}: {rule} {paths(sources)}{implicit}")
            lines.append(f"  flags = {words(flags)}")

        csrc = ROOT / "csrc"
        stable = [f"-DTORCH_TARGET_VERSION={STABLE_ABI}", "-isystem", self.include, f"-I{csrc}"]
        x86 = ["-DVAAL_X86"] if "avx2" in self.isas else []
        objects = []
        hosts = ("choose", "logits_ops", "sample_ops", "deepfool_ops")
        for source in ("ops", *(f"cpu/{name}" for name in hosts)):
            objects.append(f"{Path(source).name}.o")
            edge("cxx", objects[-1], [csrc / f"{source}.cpp"], CXX_FLAGS + stable + x86)
        for isa in self.isas:
            for kernel in CPU_KERNELS:
                objects.append(f"{kernel}.{isa}.o")
                flags = CXX_FLAGS + KERNEL_FLAGS + INSTRUCTION_SETS[isa]
                flags += [f"-DVAAL_ISA={isa}", f"-I{csrc}"]
                edge("cxx", objects[-1], [csrc / f"cpu/kernels/{kernel}.cpp"], flags)
        edge("link", "_ops_cpu.so", objects, [f"-L{self.torch_libs}", "-ltorch_cpu"])

        import pybind11

        define = f"-DVAAL_BUILD_CONFIG={json.dumps(json.dumps(self.facts()))}"
        flags = [*CXX_FLAGS, f"-I{csrc}", define]
        for include in (sysconfig.get_path("include"), pybind11.get_include()):
            flags += ["-isystem", include]
        edge("cxx", "bindings.o", [csrc / "bindings.cpp"], flags)
        edge("link", self.extension(), ["bindings.o"], [])
        if self.nvcc:
            self.cuda_edges(edge, csrc, stable, build)
        return "\n".join(lines) + "\n"

    def cuda_edges(self, edge, csrc, stable, build):
        flags = ["-std=c++20", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-DUSE_CUDA"]
        flags += ["--expt-relaxed-constexpr", "-Xptxas", "-v", "-DNDEBUG", *stable]
        for architecture, ptx in self.architectures:
            number = architecture.replace(".", "")
            flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
            if ptx:
                flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
        objects = []
        for source in sorted((csrc / "cuda").glob("*.cu")):
            objects.append(f"{source.stem}.cuda.o")
            edge("nvcc", objects[-1], [source], flags)
        # A torch without CUDA has no libtorch_cuda to link with: an empty one of that name will do,
        # for what counts is the name that the loader then asks for.
        libs, extra = self.torch_libs, ""
        if not (libs / "libtorch_cuda.so").exists():
            libs, extra = build, " | libtorch_cuda.so"
            (build / "empty.cpp").write_text("")
            edge(
                "link", "libtorch_cuda.so", ["empty.cpp"], ["-fPIC", "-Wl,-soname,libtorch_cuda.so"]
            )
        link = ["-cudart", "static", f"-L{libs}", f"-L{self.torch_libs}"]
        link += ["-Xlinker", "--no-as-needed", "-ltorch_cuda", "-ltorch_cpu"]
        edge("nvlink", "_ops_cuda.so", objects, link, extra)
        edge("join", "_ops_cuda.resources.txt", objects, [f"{o}.log" for o in objects])

    def extension(self):
        return "_C" + sysconfig.get_config_var("EXT_SUFFIX")

    def products(self):
        cuda = ["_ops_cuda.so", "_ops_cuda.resources.txt"] if self.nvcc else []
        return ["_ops_cpu.so", self.extension(), *cuda]


class NinjaBuild(build_ext):
    def run(self):
        plan = Plan()
        plan.show()
        build = ROOT / "build" / f"ninja-{sysconfig.get_platform()}-{sys.version_info.minor}"
        build.mkdir(parents=True, exist_ok=True)
        text = plan.ninja(build)
        ninja_file = build / "build.ninja"
        if not ninja_file.exists() or ninja_file.read_text() != text:
            ninja_file.write_text(text)
        import ninja

        command = [str(Path(ninja.BIN_DIR) / "ninja"), "-C", str(build)]
        if plan.jobs:
            command += ["-j", plan.jobs]
        if subprocess.run(command).returncode != 0:
            sys.exit("The build failed; the compiler's message is above.")
        in_place = self.inplace or getattr(self, "editable_mode", False)
        package = ROOT / "vaal_ext" if in_place else Path(self.build_lib) / "vaal_ext"
        package.mkdir(parents=True, exist_ok=True)
        for product in plan.products():
            if product.endswith(".txt") and not in_place:
                continue  # the report is for the tests
            # Renamed into place: a running process keeps the file that it has mapped.
            shutil.copy2(build / product, package / f"{product}.new")
            os.replace(package / f"{product}.new", package / product)


if __name__ == "__main__":  # as every builder runs it; the tests import it
    # First: under build isolation pip would else fetch every dependency before the build fails.
    need_torch()
    setup(ext_modules=[Extension("vaal_ext._C", [])], cmdclass={"build_ext": NinjaBuild})
