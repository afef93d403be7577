"""Builds the three compiled parts of vaal_ext with ninja and prints its plan first.

_ops_cpu.so   the CPU kernels: C++, one object per instruction set, chosen at run time
_ops_cuda.so  the CUDA kernels, where an nvcc is found (VAAL_CUDA=auto); no GPU is needed
_C            pybind11: build facts and launch plans, for people and tests

The two libraries keep to LibTorch's stable ABI (torch 2.11): they hold no symbol of Python, at:: or
c10::, so one build serves every later torch.

Environment: VAAL_CUDA=0|1|auto, CUDA_HOME, MAX_JOBS, CXX ("ccache g++" too), and
  VAAL_CUDA_ARCH=all|native|LIST  the GPUs to compile for; a LIST as torch's own builds read it:
                                  "8.0;9.0a+PTX", "Hopper". Not set: TORCH_CUDA_ARCH_LIST, or all
  VAAL_BUILD=fused|reference      reference: nothing is compiled, and backend="reference" works
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
sys.path.insert(0, str(ROOT / "csrc"))
from toolchain import (  # noqa: E402
    asked_architectures,
    code_flags,
    cuda_architectures,
    cxx_command,
    cxx_name,
    find_nvcc,
    need_torch,
)

STABLE_ABI = "0x020b000000000000"  # torch 2.11
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
# No fast-math: NaN and infinities keep their meaning. What is given up is errno and traps. Products
# and sums are fused as each compiler does unasked: g++ across statements, clang++ within one
# (across them it would round one formula differently in two kernels).
KERNEL_FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"]
# The two about initialisation are raised by GCC 12's own AVX-512 header; clang does not know one of
# them, which the last flag lets pass (GCC ignores that).
KERNEL_FLAGS += ["-Wno-psabi", "-Wno-unknown-pragmas"]
KERNEL_FLAGS += ["-Wno-maybe-uninitialized", "-Wno-uninitialized", "-Wno-unknown-warning-option"]


# macOS and Windows: nobody has tried them. What is known: Windows has no shell below ninja, no
# -fPIC, and other endings, and wants clang++ (MSVC does not know the kernels' vector types); macOS
# looks symbols up when a library is loaded. No OpenMP of our own anywhere: threads are torch's.
WINDOWS, MACOS = sys.platform == "win32", sys.platform == "darwin"
LIBRARY_ENDING = ".dll" if WINDOWS else ".so"  # as in vaal_ext/ops/_library.py
if WINDOWS:
    CXX_FLAGS.remove("-fPIC")
CPU_LINK = ["-Wl,-rpath,@loader_path/../torch/lib"] if MACOS else []
EXTENSION_LINK = ["-undefined", "dynamic_lookup"] if MACOS else []
if WINDOWS:
    EXTENSION_LINK.append(f"-L{Path(sys.base_prefix, 'libs')}")


def words(flags):
    """Flags of a ninja file, which the shell below it reads as one word each."""
    join = subprocess.list2cmdline if WINDOWS else shlex.join
    return join(list(map(str, flags))).replace("$", "$$")


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
        self.cxx_name = cxx_name(self.cxx)
        x86 = platform.machine() in ("x86_64", "AMD64")
        self.isas = list(INSTRUCTION_SETS) if x86 else ["portable"]
        self.nvcc, self.why_no_cuda = find_nvcc()
        self.architectures = []
        if self.nvcc:
            self.architectures, self.why_no_cuda = cuda_architectures(self.nvcc)
        if not self.architectures:
            self.nvcc = None
        self.jobs = os.environ.get("MAX_JOBS")

    def facts(self):
        names = [a + ("+PTX" if ptx else "") for a, ptx in self.architectures]
        return {
            "torch": self.torch_version,
            "stable_abi": "2.11",
            "cxx": f"{shlex.join(self.cxx)} ({self.cxx_name})",
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
        cuda = f"is not built, because {self.why_no_cuda}"
        if self.nvcc:
            variable, asked = asked_architectures()
            cuda = f"{self.nvcc}: {', '.join(facts['cuda_architectures'])}"
            cuda += f" ({variable}={';'.join(asked)})"
        print(f"  _ops_cuda     {cuda}")
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
        # ninja begins at the top: what takes longest comes first, so that nothing waits for it.
        if self.nvcc:
            self.cuda_edges(edge, csrc, stable, build)
        import pybind11

        define = f"-DVAAL_BUILD_CONFIG={json.dumps(json.dumps(self.facts()))}"
        flags = [*CXX_FLAGS, f"-I{csrc}", define]
        for include in (sysconfig.get_path("include"), pybind11.get_include()):
            flags += ["-isystem", include]
        edge("cxx", "bindings.o", [csrc / "bindings.cpp"], flags)
        edge("link", self.extension(), ["bindings.o"], EXTENSION_LINK)

        x86 = ["-DVAAL_X86"] if "avx2" in self.isas else []
        objects = []
        for kernel in CPU_KERNELS:
            for isa in reversed(self.isas):
                objects.append(f"{kernel}.{isa}.o")
                flags = CXX_FLAGS + KERNEL_FLAGS + INSTRUCTION_SETS[isa]
                flags += [f"-DVAAL_ISA={isa}", f"-I{csrc}"]
                edge("cxx", objects[-1], [csrc / f"cpu/kernels/{kernel}.cpp"], flags)
        hosts = ("choose", "logits_ops", "sample_ops", "deepfool_ops")
        for source in ("ops", *(f"cpu/{name}" for name in hosts)):
            objects.append(f"{Path(source).name}.o")
            edge("cxx", objects[-1], [csrc / f"{source}.cpp"], CXX_FLAGS + stable + x86)
        link = [f"-L{self.torch_libs}", "-ltorch_cpu", *CPU_LINK]
        edge("link", f"_ops_cpu{LIBRARY_ENDING}", objects, link)
        return "\n".join(lines) + "\n"

    def cuda_edges(self, edge, csrc, stable, build):
        common = ["-std=c++20", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-DNDEBUG"]
        kernels = [*common, f"-I{csrc}", "--expt-relaxed-constexpr", "-Xptxas", "-v"]
        kernels += code_flags(self.architectures)
        objects = []
        longest_first = {"kl_long_rows": 0}
        sources = sorted((csrc / "cuda").glob("*.cu"))
        for source in sorted(sources, key=lambda file: longest_first.get(file.stem, 2)):
            objects.append(f"{source.stem}.cuda.o")
            edge("nvcc", objects[-1], [source], kernels)
        logs = [f"{name}.log" for name in objects]
        # The tensor code, which is C++: nvcc gives the host's compiler the paths of its headers.
        for source in sorted((csrc / "cuda").glob("*.cpp")):
            objects.append(f"{source.stem}.tensors.o")
            edge("nvcc", objects[-1], [source], [*common, "-DUSE_CUDA", *stable])
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
        edge("join", "_ops_cuda.resources.txt", objects, logs)

    def extension(self):
        return "_C" + sysconfig.get_config_var("EXT_SUFFIX")

    def products(self):
        cuda = ["_ops_cuda.so", "_ops_cuda.resources.txt"] if self.nvcc else []
        return [f"_ops_cpu{LIBRARY_ENDING}", self.extension(), *cuda]


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
        left = package / "_ops_cuda.so"
        if left.name not in plan.products() and left.exists():
            print(f"removed {left}, of an earlier build: this one is without CUDA")
            left.unlink()
            (package / "_ops_cuda.resources.txt").unlink(missing_ok=True)


def main():
    wanted = os.environ.get("VAAL_BUILD", "fused")
    if wanted not in ("fused", "reference"):
        sys.exit(f"VAAL_BUILD must be fused or reference, got {wanted!r}")
    if wanted == "reference":
        print("vaal_ext build plan")
        print('  VAAL_BUILD=reference: nothing is compiled; backend="reference" works')
        return setup()
    # First: under build isolation pip would else fetch every dependency before the build fails.
    need_torch()
    setup(ext_modules=[Extension("vaal_ext._C", [])], cmdclass={"build_ext": NinjaBuild})


if __name__ == "__main__":  # as every builder runs it; the tests import it
    main()
