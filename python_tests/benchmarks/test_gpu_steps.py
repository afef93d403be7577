"""benchmarks/gpu.sh with stand-ins for its programs: what it runs in which order, what it leaves.

And gpu_needs.py, which says what is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import bench_ops
import gpu_needs
import pytest

ROOT = Path(__file__).resolve().parents[2]
FEW, LARGEST = 8, 16 << 20  # results: so many files, so many bytes each

# Runs no command but notes it; the environment says which of them break or hang.
TIMEOUT = """#!/bin/sh
shift 4  # -s INT -k 15
echo "$@" >>"$CALLS"
case "$*" in *--csv*) echo "a,b" >"$RESULTS/running.csv" ;; esac
case "$*" in
    *"$BROKEN"*) echo "it broke" && exit 1 ;;
    *"$SLOW"*) echo "half of it" && sleep "$SECONDS_LOST" && exit 124 ;;
esac
echo "said by $3"
"""
NVCC = "#!/bin/sh\necho 'Cuda compilation tools'\n"


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def place(tmp_path):
    """A folder to run gpu.sh in: the tests that it looks for, libraries, a device."""
    for folder in ("bin", "vaal_ext", "python_tests/cuda", "python_tests/ops"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("_ops_cpu.so", "_ops_cuda.so", "_ops_cuda.resources.txt"):
        (tmp_path / "vaal_ext" / name).write_text(name)
    for name in ("graphs", "device"):
        (tmp_path / f"python_tests/cuda/test_cuda_{name}.py").write_text("pytest.mark" + ".gpu")
    executable(tmp_path / "bin/timeout", TIMEOUT)
    executable(tmp_path / "bin/python3", "#!/bin/sh\nexit ${NO_DEVICE:-0}\n")
    return tmp_path


def gpu(place: Path, *steps: str, **environment: str):
    """The process, and the calls of `timeout`: (limit, command)."""
    calls = place / "calls"
    calls.unlink(missing_ok=True)
    variables = {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "RESULTS": str(place / "results"),
        "BROKEN": "nothing",
        "SLOW": "nothing",
        "SECONDS_LOST": "0",
        **environment,
    }
    done = subprocess.run(
        ["sh", str(ROOT / "benchmarks/gpu.sh"), *steps],
        cwd=place,
        env=variables,
        capture_output=True,
        text=True,
    )
    lines = calls.read_text().splitlines() if calls.exists() else []
    return done, [(int(limit), words) for limit, _, words in (x.partition(" ") for x in lines)]


def results(place: Path) -> list[str]:
    found = list((place / "results").iterdir())
    assert len(found) <= FEW
    assert all(path.stat().st_size < LARGEST for path in found)
    return sorted(path.name for path in found)


def summary(place: Path) -> dict[str, str]:
    """Step -> result."""
    lines = (place / "results/summary.txt").read_text().splitlines()
    return {line.split("  ")[1]: line.split("  ")[0] for line in lines}


def test_all_steps_in_order_each_below_ten_minutes(place):
    done, calls = gpu(place)
    assert done.returncode == 0
    assert all(limit < 600 for limit, _ in calls)
    marks = ["gpu_needs.py", "build_ext", "vaal_ext info", "test_cuda_graphs", "test_cuda_device"]
    marks += ["python_tests/ops", "--tool memcheck", *(f"--ops {op} " for op in bench_ops.GRID)]
    marks += [f"bench_{name}.py" for name in ("ldr", "deepfool", "pool", "accuracy")]
    marks += [f"--tool {tool}check" for tool in ("race", "init", "sync")]
    assert len(marks) == len(calls)
    for mark, (_, words) in zip(marks, calls, strict=True):
        assert mark in words
    assert "VAAL_CUDA=1" in calls[1][1]
    assert summary(place).pop("prebuilt") == "skipped"
    assert set(summary(place).values()) == {"ok", "skipped"}
    assert done.stdout.rstrip().endswith("VAAL_PREBUILT is not set")


def test_results_are_few_files_and_whole(place):
    gpu(place)
    assert results(place) == ["built.tar.gz", "log.txt", "summary.txt", "tables.tar"]
    with tarfile.open(place / "results/tables.tar") as tar:
        tables = ["ldr", "deepfool", "pool", "accuracy"]
        assert tar.getnames() == [f"{name}.csv" for name in [*bench_ops.GRID, *tables]]
    with tarfile.open(place / "results/built.tar.gz") as tar:
        assert len(tar.getnames()) == 3
    assert (place / "results/log.txt").read_text().count("==== ") == len(summary(place))


def test_steps_one_by_one_add_to_what_is_there_and_all_begin_anew(place):
    for name in ("symmetric_kl", "ldr"):
        gpu(place, name)
    assert list(summary(place)) == ["symmetric_kl", "ldr"]
    with tarfile.open(place / "results/tables.tar") as tar:
        assert tar.getnames() == ["symmetric_kl.csv", "ldr.csv"]
    gpu(place)
    assert next(iter(summary(place))) == "needs"


@pytest.mark.parametrize(("group", "count"), [("ops", len(bench_ops.GRID)), ("tests", 3)])
def test_groups(place, group, count):
    assert len(gpu(place, group)[1]) == count


def test_what_breaks_or_hangs_loses_nothing_that_was_written(place):
    done, _ = gpu(place, "ops", BROKEN="--ops perturb", SLOW="--ops forward_kl")
    assert done.returncode == 1
    found = summary(place)
    assert found.pop("perturb") == "FAILED"
    assert found.pop("forward_kl") == "TOO LONG"
    assert set(found.values()) == {"ok"}
    with tarfile.open(place / "results/tables.tar") as tar:
        assert tar.getnames() == [f"{op}.csv" for op in bench_ops.GRID]
    log = (place / "results/log.txt").read_text()
    assert "half of it" in log
    assert "it broke" in log


def test_the_time_for_all_of_it_cuts_a_step_short_and_leaves_out_the_rest(place):
    slow = {"SLOW": "--ops", "SECONDS_LOST": "6"}
    done, calls = gpu(place, "symmetric_kl", "ldr", "pool", **slow, WITHIN="10")
    assert done.returncode == 1
    ((limit, _),) = calls
    assert 5 <= limit <= 10
    assert summary(place) == {"symmetric_kl": "TOO LONG", "ldr": "skipped", "pool": "skipped"}
    assert "no time is left of WITHIN" in done.stdout


def test_libraries_of_before_are_unpacked_instead_of_built(place):
    gpu(place, "build")
    _, calls = gpu(place, "build", BUILT="results/built.tar.gz")
    assert [words for _, words in calls] == [
        "tar -xzvf results/built.tar.gz",
        "python3 -m vaal_ext info",
    ]


def test_a_build_that_fails_keeps_no_libraries(place):
    assert gpu(place, "build", BROKEN="build_ext")[0].returncode == 1
    assert "built.tar.gz" not in results(place)


def test_without_a_device_only_the_first_question_is_answered(place):
    done, calls = gpu(place, "needs", "tests", NO_DEVICE="1")
    assert done.returncode == 2
    assert "this torch sees no CUDA device" in done.stderr
    assert len(calls) == 1
    done, calls = gpu(place, REHEARSE="1", NO_DEVICE="1")
    assert done.returncode == 0
    assert not any("compute-sanitizer" in words or "cuda " in words for _, words in calls)


def test_an_unknown_step_is_refused(place):
    done, calls = gpu(place, "build", "tset")
    assert done.returncode == 2
    assert "there is no step tset" in done.stderr
    assert not calls


def asked(monkeypatch, capsys, device):
    monkeypatch.setattr("sys.argv", ["gpu_needs.py", "--device", device])
    try:
        gpu_needs.main()
    except SystemExit as ended:
        return ended.code, capsys.readouterr().out.splitlines()
    return 0, capsys.readouterr().out.splitlines()


def test_all_that_is_missing_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu_needs.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(gpu_needs, "version", lambda name: "68.1.2" if name != "torch" else "2.11")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(Path(shutil.which("c++")).parent))
    status, lines = asked(monkeypatch, capsys, "cuda")
    assert status == 1
    assert lines[-1] == "missing: setuptools, Python.h, nvcc, compute-sanitizer, GPU"
    text = "\n".join(lines)
    assert "MISSING: found 68.1.2, needs 77" in text
    assert f"MISSING: no {tmp_path}/Python.h (Debian, Ubuntu: python3-dev)" in text
    assert "sees no CUDA device" in text


def test_a_rehearsal_asks_for_no_gpu(monkeypatch, capsys, tmp_path):
    executable(tmp_path / "nvcc", NVCC)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    status, lines = asked(monkeypatch, capsys, "cpu")
    assert (status, lines[-1]) == (0, "nothing is missing")
    assert not any("sanitizer" in line for line in lines)


def test_a_tool_that_does_not_run_is_missing(monkeypatch, tmp_path):
    executable(tmp_path / "tool", "#!/bin/sh\necho 'no library' >&2\nexit 3\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(gpu_needs.Missing, match="tool --version fails: no library"):
        gpu_needs.command("tool")


def optional_modules() -> list[str]:
    """Of the packages that an extra of vaal_ext asks for and a machine with a GPU need not have."""
    extras = {re.match(r"[\w-]+", line)[0] for line in requires("vaal_ext") if "extra ==" in line}
    absent = extras - gpu_needs.PACKAGES.keys() - {"mpmath", "vaal_ext"}  # torch brings mpmath
    return [name for name, of in packages_distributions().items() if not absent.isdisjoint(of)]


@pytest.mark.slow
def test_what_is_needed_suffices_for_the_tests_of_a_device(tmp_path):
    assert {"selenium", "scipy"} <= set(optional_modules())
    plugin = f"import sys\nsys.modules.update(dict.fromkeys({optional_modules()}))\n"
    (tmp_path / "absent.py").write_text(plugin)
    files = [str(path) for path in ROOT.glob("python_tests/*/test_*.py")]
    files = [path for path in files if re.search(r"mark\.gpu", Path(path).read_text())]
    options = ["-p", "absent", "-p", "no:cacheprovider", "-m", "gpu", "--collect-only", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files, str(ROOT / "python_tests/ops")],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "python_tests/cuda/test_cuda_graphs.py:" in done.stdout
    assert "python_tests/ops/test_ops.py:" in done.stdout
