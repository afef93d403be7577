"""What `vaal-ext bench` does: the repository's benchmarks, each in a process of its own."""

from __future__ import annotations

import ast
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vaal_ext.experiment.datasets.load import load_dataset
from vaal_ext.experiment.status import duration
from vaal_ext.network.device import device_named

__all__ = ["NAMES", "TRAINED", "UNTIMED", "run"]

# Those that measure no time, and so take no number of threads.
UNTIMED = ("accuracy", "stability", "precision", "search")
# Those that train networks: on digits, and on MNIST where they are told where it lies.
TRAINED = ("stability", "direction", "precision", "search", "query")

_ROOT = Path(__file__).resolve().parents[3]
_BUSY = 0.5  # processes that want a core: one more makes threads wait for each other's turn
_QUICK = {
    "accuracy": (),
    "ops": ("--seconds", "0.2", "--dtypes", "float32"),
    "ldr": ("--seconds", "1"),
    "deepfool": ("--seconds", "1"),
    "pool": ("--passes", "2", "--samples", "200000", "--jpegs", "500"),
    "stability": ("--starts", "2", "--samples", "500"),
    "direction": ("--seconds", "1", "--samples", "500"),
    "precision": ("--samples", "500"),
    "search": ("--samples", "200"),
    "query": ("--pool", "1000", "--rounds", "1"),
}
# All there are.
NAMES = tuple(_QUICK)


def run(
    names: Sequence[str],
    device: str | None,
    threads: Sequence[int] | None,
    out: Path | None,
    data_root: Path | None,
    *,
    quick: bool,
) -> int:
    """Runs benchmarks one after another; what they print goes to stdout, and at last a summary.

    Args:
        names: of NAMES.
        device: "cpu", "cuda" or "cuda:1"; by default cuda where there is one.
        threads: numbers of CPU threads; by default 1 and 2 on a CPU with two cores, 1 with CUDA.
        out: folder for the tables (ops_cpu.csv and so on), or None. They are put there when all
            have been measured, so that a clean working tree stays clean until then.
        data_root: folder that holds MNIST/raw, for the networks of TRAINED; None leaves them at
            digits.
        quick: fewer turns, float32 only, smaller pools.

    Returns:
        0, or the exit status of the benchmark that failed (after which none is run).

    Raises:
        ValueError: an argument out of its range, or no benchmarks beside the package.
        FileNotFoundError: MNIST is not below `data_root`.
        OSError: the folder cannot be made.
    """
    folder = _ROOT / "benchmarks"
    if not (folder / "bench_ops.py").is_file():
        raise ValueError(
            f"there are no benchmarks in {folder}: they are in the repository, not in the "
            "installed package. Clone it and run `make bench` there"
        )
    where = device_named(device)
    if threads and min(threads) < 1:
        raise ValueError(f"threads must be at least 1, got {min(threads)}")
    if data_root is not None:
        load_dataset("mnist", data_root, 0)  # what is missing is said before the first benchmark
    load = os.getloadavg()[0]
    if load > _BUSY:
        warnings.warn(
            f"this machine is busy (load {load:.1f}): the times will be off", stacklevel=2
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    # For results and working files that nobody asked for, and gone with them if we are killed.
    with tempfile.TemporaryDirectory(dir=out, prefix=".bench-") as temporary:
        for number, name in enumerate(names, 1):
            about = ast.get_docstring(ast.parse((folder / f"bench_{name}.py").read_text()))
            what = f". {about.splitlines()[0]}" if about else ""
            print(f"== benchmark {number} of {len(names)}: {name}{what}", flush=True)
            started = time.perf_counter()
            table = Path(temporary) / f"{name}_{where.type}.csv"
            command = [sys.executable, str(folder / f"bench_{name}.py"), "--device", str(where)]
            command += ["--csv", str(table), *(_QUICK[name] if quick else ())]
            if threads and name not in UNTIMED:
                command += ["--threads", *map(str, threads)]
            if data_root is not None and name in TRAINED:
                command += ["--data-root", str(data_root.absolute())]
            search = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
            # Unbuffered: in a log, too, each line is there when it is printed.
            own = {"PYTHONPATH": search, "PYTHONUNBUFFERED": "1"}
            status = _run(command, os.environ | own)
            if status:
                return status
            print(f"({name} took {duration(time.perf_counter() - started)})\n", flush=True)
        for line in _summary(names, Path(temporary)):
            print(line)
        if out is not None:
            for table in sorted(Path(temporary).glob("*.csv")):
                os.replace(table, out / table.name)
                print(f"written: {out / table.name}")
    return 0


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status of a process; when this one is interrupted, it ends with all it has started.

    In a session of its own, Ctrl-C does not reach it, and it prints no traceback below our line.
    """
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            return process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _summary(names: Sequence[str], folder: Path) -> Iterator[str]:
    """From the tables in the folder: how the opponents' times compare with ours, one a line."""
    yield "== summary: what others take, as a multiple of vaal_ext's time (median, least to most)"
    no_race = []
    for name in names:
        ratios: dict[str, list[float]] = {}
        for table in folder.glob(f"{name}_*.csv"):
            with table.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    opponent = row.get("opponent") or ""
                    if row.get("ratio_to_ours") and not opponent.startswith("vaal_ext"):
                        ratios.setdefault(opponent, []).append(float(row["ratio_to_ours"]))
        for opponent, values in ratios.items():
            slower = sum(value > 1 for value in values)
            yield (
                f"{name:10}{opponent:24}{statistics.median(values):7.2f} x "
                f"({min(values):.2f} to {max(values):.2f}); vaal_ext is faster in {slower} of "
                f"{len(values)} cases"
            )
        if not ratios:
            no_race.append(name)
    if no_race:
        yield f"no race, see above: {', '.join(no_race)}"
