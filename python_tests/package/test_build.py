"""What was built: stable ABI, architectures; and what the build says when it cannot."""

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from exclusive import exclusive

import vaal_ext
from vaal_ext import _C
from vaal_ext.ops import _library

ROOT = Path(__file__).resolve().parents[2]
CONFIG = _C.build_config()
AUDIT = Path(sys.executable).parent / "torch-abi-audit"
needs_cuda_library = pytest.mark.skipif(
    not _library.CUDA_LIBRARY.exists(), reason=f"_ops_cuda is not built: {CONFIG['why_no_cuda']}"
)
LIBRARIES = [
    _library.CPU_LIBRARY,
    pytest.param(_library.CUDA_LIBRARY, marks=needs_cuda_library),
]


def run(*command, **environment):
    # One at a time: setup.py writes the package's egg-info.
    with exclusive(ROOT / "build" / "tests.lock"):
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
        )


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_libraries_keep_to_the_stable_abi_of_2_11(library):
    done = run(str(AUDIT), "--check", "torch", str(library))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Torch ABI:\s+STABLE", done.stdout), done.stdout
    major, minor = re.search(r"Min torch:\s+(\d+)\.(\d+)", done.stdout).groups()
    assert (int(major), int(minor)) <= (2, 11)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_libraries_hold_no_python(library):
    done = run("nm", "-D", "--undefined-only", "-C", str(library))
    names = [
        line.split(maxsplit=1)[-1].removeprefix("U ").strip() for line in done.stdout.splitlines()
    ]
    assert any(name.startswith("aoti_torch_") for name in names), "nm showed nothing"
    assert not [n for n in names if re.match(r"_?Py[A-Z_]|at::|c10::|torch::autograd", n)]


@needs_cuda_library
def test_cuda_library_holds_the_architectures_asked_for():
    """cuobjdump is not part of every toolkit; the file's embedded ELF and PTX name their target."""
    content = _library.CUDA_LIBRARY.read_bytes()
    report = (_library.CUDA_LIBRARY.parent / "_ops_cuda.resources.txt").read_text()
    assert CONFIG["cuda_architectures"]
    for name in CONFIG["cuda_architectures"]:
        number = name.removesuffix("+PTX").replace(".", "")
        assert f"for 'sm_{number}'" in report
        assert f"sm_{number}".encode() in content or f"compute_{number}".encode() in content


def test_build_config_names_what_was_built():
    assert set(CONFIG) == {
        "torch",
        "stable_abi",
        "cxx",
        "cpu_instruction_sets",
        "nvcc",
        "cuda_architectures",
        "why_no_cuda",
    }
    assert "portable" in CONFIG["cpu_instruction_sets"]
    assert bool(CONFIG["nvcc"]) != bool(CONFIG["why_no_cuda"])
    assert re.search(r" \((clang|g)\+\+ [0-9.]+\)$", CONFIG["cxx"])


def test_the_stub_of_C_is_the_module():
    stub = ast.parse((Path(vaal_ext.__file__).parent / "_C.pyi").read_text())
    functions = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert functions == {name for name in vars(_C) if not name.startswith("_")}
    fields = {
        node.name: {line.target.id for line in node.body if isinstance(line, ast.AnnAssign)}
        for node in stub.body
        if isinstance(node, ast.ClassDef)
    }
    assert fields == {
        "BuildConfig": set(CONFIG),
        "LaunchPlan": set(_C.launch_plan("perturb", 1, 1, "float32")),
    }


HEAVY = (
    "matplotlib",
    "sklearn",
    "torchvision",
    "scipy",
    "baal",
    "modAL",
    "ray",
    "skactiveml",
    "skorch",
    "small_text",
    "transformers",
)


def test_import_is_light():
    code = f"import sys, vaal_ext; print([m for m in {(*HEAVY, 'torch')} if m in sys.modules])"
    assert run(sys.executable, "-c", code).stdout.strip() == "[]"
    code = (
        "import sys, vaal_ext; vaal_ext.ldr_scores, vaal_ext.select, vaal_ext.ops; "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = run(sys.executable, "-c", code)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture
def unbuilt(tmp_path):
    """A copy of the package without its libraries."""
    for source in Path(vaal_ext.__file__).parent.rglob("*.py"):
        target = tmp_path / "vaal_ext" / source.relative_to(Path(vaal_ext.__file__).parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    return tmp_path


def test_an_unbuilt_package_says_what_to_type(unbuilt):
    code = "import os; os.chdir('/'); import vaal_ext; vaal_ext.ops"
    done = run(sys.executable, "-c", code, PYTHONPATH=str(unbuilt))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "not built" in last
    assert "backend='reference'" in last
    assert "pip install --no-build-isolation -e ." in last


WITHOUT_KERNELS = """
import os; os.chdir("/")
import torch, vaal_ext
from vaal_ext.models import MLP
pool = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
model = MLP(6, num_classes=3)
scores = vaal_ext.LDRScorer(model, eps=0.1, backend="reference", look=False).score(pool)
assert len(vaal_ext.select(scores.ldr, scores.pseudo_label, n=3)) == 3
assert vaal_ext.vat_loss(model, pool, eps=0.1, backend="reference") >= 0
try:
    vaal_ext.LDRScorer(model, eps=0.1, look=False).score(pool)
except ImportError as error:  # nothing falls back by itself
    print(vaal_ext.__file__, error)
"""


def test_a_reference_build_compiles_nothing_and_works_in_plain_pytorch(tmp_path):
    setup = (sys.executable, "setup.py", "-q", "build", "-b", str(tmp_path), "bdist_wheel")
    done = run(*setup, "-d", str(tmp_path), VAAL_BUILD="reference", CXX="/nonexistent/c++")
    assert done.returncode == 0, done.stderr
    assert "nothing is compiled" in done.stdout
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")  # for every Python and platform
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        assert not [name for name in archive.namelist() if ".so" in name]
    done = run(sys.executable, "-c", WITHOUT_KERNELS, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    where, _, said = done.stdout.partition(" ")
    assert Path(where).is_relative_to(tmp_path / "site")
    assert "kernels are not built" in said
    assert "backend='reference'" in said


def test_a_damaged_library_says_what_to_type(unbuilt):
    (unbuilt / "vaal_ext" / "_ops_cpu.so").write_bytes(b"not a library")
    code = "import os; os.chdir('/'); import vaal_ext; vaal_ext.ops"
    done = run(sys.executable, "-c", code, PYTHONPATH=str(unbuilt))
    assert "build it again" in done.stderr.strip().splitlines()[-1]


def setup_says(python=sys.executable, **environment):
    done = run(python, "setup.py", "-q", "build_ext", **environment)
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_build_refusals():
    """Each ends before anything is compiled, with one sentence."""
    assert "VAAL_BUILD must be fused or reference" in setup_says(VAAL_BUILD="yes")
    assert "VAAL_CUDA must be 0, 1 or auto" in setup_says(VAAL_CUDA="yes")
    assert "there is no nvcc" in setup_says(VAAL_CUDA="1", CUDA_HOME="/nonexistent")
    assert "No C++ compiler" in setup_says(VAAL_CUDA="0", CXX="/nonexistent/c++")


@pytest.fixture
def setup_module():
    """setup.py as a module: its functions, and no build."""
    spec = importlib.util.spec_from_file_location("vaal_ext_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nvcc(tmp_path):
    """One that says what it knows, and no more: so the lists are read without CUDA too."""
    path = tmp_path / "nvcc"
    path.write_text("#!/bin/sh\nfor n in 75 80 86 89 90 100 103 120; do echo compute_$n; done\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("9.0", [("9.0", False)]),
        ("8.0,9.0", [("8.0", False), ("9.0", False)]),
        ("8.0 9.0+PTX;", [("8.0", False), ("9.0", True)]),
        ("9.0a;10.0f+PTX", [("9.0a", False), ("10.0f", True)]),
        ("Hopper", [("9.0", False)]),
        ("Ampere+PTX", [("8.0", True), ("8.6", True)]),
        ("ampere;8.6;ADA", [("8.0", False), ("8.6", False), ("8.9", False)]),
        ("native", [("8.9", False), ("9.0", False)]),
        (
            "all",
            [*((name, False) for name in ("7.5", "8.0", "8.6", "9.0", "10.0")), ("12.0", True)],
        ),
        ("8.0;native", [("8.0", False), ("8.9", False), ("9.0", False)]),
    ],
)
@pytest.mark.parametrize("variable", ["VAAL_CUDA_ARCH", "TORCH_CUDA_ARCH_LIST"])
def test_architectures_in_torchs_spellings(variable, asked, found, setup_module, nvcc, monkeypatch):
    monkeypatch.delenv("VAAL_CUDA_ARCH", raising=False)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")  # which VAAL_CUDA_ARCH goes before
    monkeypatch.setenv(variable, asked)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    of_device = {0: (9, 0), 1: (8, 9), 2: (9, 0)}
    monkeypatch.setattr("torch.cuda.get_device_capability", of_device.get)
    assert setup_module.cuda_architectures(nvcc) == (found, "")


def test_architectures_that_are_none(setup_module, nvcc, monkeypatch):
    monkeypatch.delenv("VAAL_CUDA_ARCH", raising=False)
    for asked, message in {
        "9.0;42.0": "does not know 42.0. Give numbers .7.5, .*Hopper",
        "Hoper": "does not know Hoper",
        "9.0b": "does not know 9.0b",
        "native": "native, but torch sees no GPU here",
    }.items():
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
        with pytest.raises(SystemExit, match=message):
            setup_module.cuda_architectures(nvcc)


def test_native_where_there_is_no_gpu_leaves_cuda_out(setup_module, nvcc, monkeypatch):
    monkeypatch.setenv("VAAL_CUDA_ARCH", "native")
    monkeypatch.setenv("VAAL_CUDA", "auto")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    chosen, why = setup_module.cuda_architectures(nvcc)
    assert chosen == []
    assert why == "VAAL_CUDA_ARCH=native and torch sees no GPU here"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda i: (6, 1))
    chosen, why = setup_module.cuda_architectures(nvcc)
    assert chosen == []
    assert "a GPU of 6.1, which nvcc does not know" in why
    monkeypatch.setenv("VAAL_CUDA", "1")
    with pytest.raises(SystemExit, match=r"VAAL_CUDA=1, but VAAL_CUDA_ARCH=native.*6\.1.*or all"):
        setup_module.cuda_architectures(nvcc)


def test_a_generation_is_gone_through_once(setup_module):
    """Its oldest gives the intermediate code of all; one with a letter stands for itself."""
    asked = [("9.0", False), ("8.0", False), ("9.0a", False), ("12.0", True), ("10.0", False)]
    assert setup_module.code_flags(asked) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_80,code=sm_90",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_100,code=sm_100",
        "-gencode=arch=compute_100,code=sm_120",
        "-gencode=arch=compute_100,code=compute_100",
    ]


def test_a_compiler_of_several_words(setup_module, tmp_path, monkeypatch):
    beside = tmp_path / "my tools"
    beside.mkdir()
    (beside / "g++").write_text("#!/bin/sh\n")
    (beside / "g++").chmod(0o755)
    for asked, words in {
        "env g++": ["env", "g++"],
        "env -u X 'a b'": ["env", "-u", "X", "a b"],
        str(beside / "g++"): [str(beside / "g++")],  # one path, with a blank
    }.items():
        monkeypatch.setenv("CXX", asked)
        assert setup_module.cxx_command() == words


@pytest.mark.parametrize(
    ("macros", "says"),
    [
        ({"__GNUC__": 12, "__GNUC_MINOR__": 2, "__GNUC_PATCHLEVEL__": 0}, "g++ 12.2.0"),
        ({"__clang_major__": 14, "__clang_minor__": 0, "__GNUC__": 4}, "clang++ 14.0.0"),
        ({"__GNUC__": 10}, r"is g\+\+ 10.0.0: install g\+\+ 11 or newer, or clang"),
        ({"__clang_major__": 13, "__GNUC__": 4}, r"is clang\+\+ 13.0.0: install g"),
        ({}, r"is neither g\+\+ nor clang"),
    ],
)
def test_what_the_compiler_is(macros, says, setup_module, tmp_path):
    lines = "\n".join(f"#define {name} {value}" for name, value in macros.items())
    (tmp_path / "defines").write_text(lines)
    command = ["sh", "-c", f"cat {tmp_path}/defines"]
    if says.startswith("is"):
        with pytest.raises(SystemExit, match=says):
            setup_module.cxx_name(command)
    else:
        assert setup_module.cxx_name(command) == says


def test_blanks_in_paths(setup_module, tmp_path, monkeypatch):
    """ninja and the shell below it get every path as one word (here they only list them)."""
    import ninja

    root = tmp_path / "a b$c: d"
    (root / "csrc").mkdir(parents=True)
    monkeypatch.setattr(setup_module, "ROOT", root)
    monkeypatch.setenv("CXX", "env g++")
    monkeypatch.setenv("VAAL_CUDA", "0")
    plan = setup_module.Plan()
    plan.include = root / "torch include"
    (tmp_path / "build.ninja").write_text(plan.ninja(tmp_path))
    listed = run(
        str(Path(ninja.BIN_DIR) / "ninja"), "-C", str(tmp_path), "-t", "compdb", "cxx"
    ).stdout
    commands = [shlex.split(entry["command"]) for entry in json.loads(listed)]
    assert {"ops.cpp", "bindings.cpp"} <= {Path(c[c.index("-c") + 1]).name for c in commands}
    for command in commands:
        assert command[:2] == ["env", "g++"]
        source = Path(command[command.index("-c") + 1])
        assert source.is_relative_to(root / "csrc")
    torchs = [command for command in commands if "-isystem" in command]
    assert any(str(root / "torch include") in command for command in torchs)


def test_an_sdist_holds_what_a_build_needs(tmp_path):
    done = run(sys.executable, "setup.py", "-q", "sdist", "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".cpp", ".cu", ".cuh", ".h")]
    wanted = {str(p.relative_to(ROOT)) for p in sources}
    wanted |= {
        "setup.py",
        "csrc/toolchain.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "vaal_ext/_C.pyi",
    }
    wanted |= {str(p.relative_to(ROOT)) for p in (ROOT / "vaal_ext").rglob("*.py")}
    assert not wanted - names
    assert not [name for name in names if name.endswith(".so")]


def test_a_missing_torch_ends_with_what_to_type(tmp_path):
    """A bare environment stands in for pip's isolated one: setuptools is there, torch is not."""
    import setuptools

    venv.create(tmp_path / "bare", with_pip=False)
    python = str(tmp_path / "bare" / "bin" / "python")
    link = tmp_path / "only"
    link.mkdir()
    for name in ("setuptools", "_distutils_hack", "pkg_resources"):
        source = Path(setuptools.__file__).parent.parent / name
        if source.exists():
            (link / name).symlink_to(source)
    last = setup_says(python, PYTHONPATH=str(link))
    assert last.startswith("No torch here.")
    assert "pip install --no-build-isolation ." in last


OPS = ("symmetric_kl", "perturb", "random_perturb", "posterior_summary")
OPS += ("deepfool_step", "fisher_product", "fisher_direction")


@pytest.mark.parametrize("op", OPS)
def test_launch_plans(op):
    """Every row gets its threads, and nothing exceeds what a block may have."""
    longest = 2**31 if "perturb" in op or op == "deepfool_step" else 200_001
    for rows, cols in [
        (0, 10),
        (1, 1),
        (256, 10),
        (1024, 1000),
        (1, 200_000),
        (2, longest),
        (7, 129),
    ]:
        for dtype in ("float32", "float64", "bfloat16", "float16"):
            plan = _C.launch_plan(op, rows, cols, dtype)
            assert plan["path"] in ("warp", "block", "stream", "split")
            assert 1 <= plan["block_threads"] <= 1024
            assert plan["block_threads"] % 32 == 0
            assert plan["shared_bytes"] <= 227 * 1024
            assert plan["blocks"] > 0 or rows == 0
            if plan["path"] in ("warp", "block"):
                assert plan["threads_per_row"] * plan["items_per_thread"] >= min(cols, 1)
    alone = op.startswith("fisher")  # which stream every long row by one block
    assert (_C.launch_plan(op, 1, 2**24, "float32")["splits"] == 1) == alone


def test_launch_plan_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="there is no op"):
        _C.launch_plan("softmax", 1, 1, "float32")
    with pytest.raises(ValueError, match="dtype must be"):
        _C.launch_plan("perturb", 1, 1, "int8")
