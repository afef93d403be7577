"""`vaal-ext bench` runs the repository's benchmarks and puts their tables where it was told."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest
from command_line import NOT_A_FOLDER, refuse

import vaal_ext
from vaal_ext.cli.app import main
from vaal_ext.cli.work import bench

# Stands in for a benchmark: says what it was given, and writes a table (or fails).
SCRIPT = """
import pathlib, sys
assert "vaal_ext" not in sys.modules
import vaal_ext
print(pathlib.Path(__file__).stem, *sys.argv[1:])
pathlib.Path(sys.argv[sys.argv.index("--csv") + 1]).write_text("table")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone whose benchmarks are stand-ins, and a folder in it to work in."""
    (tmp_path / "benchmarks").mkdir()
    for name in bench.NAMES:
        (tmp_path / "benchmarks" / f"bench_{name}.py").write_text(SCRIPT)
    package = Path(vaal_ext.__file__).resolve().parent
    (tmp_path / "vaal_ext").symlink_to(package, target_is_directory=True)
    monkeypatch.setattr(bench, "_ROOT", tmp_path)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 3.0, 3.0))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_benchmarks_run_in_turn(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--device", "cpu", "--threads", "1", "--threads", "3", "--out", "o"]) == 0
    lines = capfd.readouterr().out.splitlines()
    heads = [line for line in lines if line.startswith("== ")]
    assert heads[:-1] == [
        f"== benchmark {i} of {len(bench.NAMES)}: {n}" for i, n in enumerate(bench.NAMES, 1)
    ]
    assert heads[-1].startswith("== summary")
    assert [line for line in lines if " took " in line] == [f"({n} took 5 s)" for n in bench.NAMES]
    started = [line.split() for line in lines if line.startswith("bench_")]
    assert [words[0] for words in started] == [f"bench_{name}" for name in bench.NAMES]
    for name, words in zip(bench.NAMES, started, strict=True):
        assert words[1:3] == ["--device", "cpu"]
        assert (words[-3:] == ["--threads", "1", "3"]) == (name not in bench.UNTIMED)
        assert "--seconds" not in words
    tables = {path.name for path in Path("o").iterdir()}
    assert tables == {f"{name}_cpu.csv" for name in bench.NAMES}


def test_one_benchmark_quickly(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ops", "--device", "cpu", "--quick"]) == 0
    out = capfd.readouterr().out
    assert "bench_ops" in out
    assert "--dtypes float32" in out
    assert "--threads" not in out  # the benchmark knows best
    assert "bench_ldr" not in out
    assert not list(place.glob("**/*.csv"))
    assert not list(place.glob(".bench-*"))


def test_the_end_sums_up_how_others_compare(place: Path, capfd) -> None:
    tables = {
        "ops": 'opponent,ratio_to_ours\nvaal_ext,1\n"vaal_ext, autograd",14\neager,3\neager,9\n'
        "eager,0.5\nclone,0.56\n",
        "ldr": "opponent,ratio_to_ours\nvat,1.25\n",
        "accuracy": "method,worst\nvaal_ext,1e-7\n",
    }
    for name, table in tables.items():
        path = place / "benchmarks" / f"bench_{name}.py"
        path.write_text(f'"""About {name}.\n\nMore."""\n' + SCRIPT.replace('"table"', repr(table)))
    for name in ("ops", "ldr", "accuracy"):
        assert main(["bench", name, "--device", "cpu"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "== benchmark 1 of 1: ops. About ops." in lines
    start = (
        "ops       eager                      3.00 x (0.50 to 9.00); vaal_ext is faster in 2 of 3"
    )
    assert [line for line in lines if " x (" in line] == [
        f"{start} cases",
        "ops       clone                      0.56 x (0.56 to 0.56); vaal_ext is faster in 0 of 1 "
        "cases",
        "ldr       vat                        1.25 x (1.25 to 1.25); vaal_ext is faster in 1 of 1 "
        "cases",
    ]
    assert "no race, see above: accuracy" in lines


def test_networks_are_trained_on_mnist_where_it_is(place: Path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(bench, "load_dataset", lambda name, root, seed: None)
    assert main(["bench", "--device", "cpu", "--data-root", "data"]) == 0
    started = [line.split() for line in capfd.readouterr().out.splitlines() if "bench_" in line]
    told = {words[0].removeprefix("bench_") for words in started if "--data-root" in words}
    assert told == set(bench.TRAINED)
    assert all(words[-1] == str(place / "data") for words in started if "--data-root" in words)


def test_a_busy_machine_is_told_of(place, capfd, monkeypatch) -> None:
    assert main(["bench", "accuracy", "--device", "cpu"]) == 0
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("os.getloadavg", lambda: (3.0, 0.0, 0.0))
    assert main(["bench", "accuracy", "--device", "cpu"]) == 0
    assert "warning: this machine is busy (load 3.0)" in capfd.readouterr().err


class Parsed(Exception):
    pass


@pytest.mark.parametrize("name", bench.NAMES)
def test_the_benchmarks_take_what_they_are_given(name: str, monkeypatch, tmp_path: Path) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise Parsed

    given = ["--device", "cpu", "--csv", str(tmp_path / "table.csv"), *bench._QUICK[name]]
    given += [] if name in bench.UNTIMED else ["--threads", "1", "3"]
    given += ["--data-root", str(tmp_path)] if name in bench.TRAINED else []
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr("sys.argv", ["benchmark", *given])
    with pytest.raises(Parsed):
        importlib.import_module(f"bench_{name}").main()


def test_a_benchmark_that_fails_ends_it(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "benchmarks" / "bench_ops.py").write_text("import sys; sys.exit('an opponent is off')")
    assert main(["bench", "--device", "cpu", "--out", "o"]) == 1
    out, err = capfd.readouterr()
    assert "an opponent is off" in err
    assert "3 of 10: ldr" not in out
    assert not list(Path("o").iterdir())  # half a set of tables is none


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense"),
        (["--device", "tpu9"], "device must be cpu, cuda or cuda:N, got 'tpu9'"),
        (["--device", "meta"], "device must be cpu, cuda or cuda:N, got 'meta'"),
        (["--device", "cuda:99"], "there is no device cuda:99"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (["--threads", "two"], "--threads"),
        (["--data-root", "nowhere"], "mnist wants the files train-images-idx3-ubyte"),
        (["--out", str(NOT_A_FOLDER)], "Not a directory"),
    ],
)
def test_bad_options(place, capfd, arguments, message) -> None:
    refuse(place, capfd, ["bench", *arguments], message)


def test_an_installed_package_has_no_benchmarks(place, capfd) -> None:
    for script in (place / "benchmarks").iterdir():
        script.unlink()
    refuse(place, capfd, ["bench", "ops"], "Clone it and run `make bench` there")


@pytest.mark.parametrize("name", bench.NAMES)
def test_the_command_knows_every_benchmark(place: Path, name: str) -> None:
    assert main(["bench", name, "--threads", "1", "--out", "tables"]) == 0
    assert (place / "tables" / f"{name}_cpu.csv").exists()
