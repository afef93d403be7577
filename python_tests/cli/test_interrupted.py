"""Ctrl-C and SIGTERM: what is kept and how to go on, in one line; a stdout that lacks letters."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vaal_ext.cli.app import main
from vaal_ext.cli.exit_status import keeping
from vaal_ext.cli.work import bench, score, select
from vaal_ext.experiment import loop
from vaal_ext.labelling import begin, config, project
from vaal_ext.paper import runner
from vaal_ext.pool.scores import PoolScores
from vaal_ext.report import write


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "owner", "name", "message"),
    [
        (
            ["run", "--dataset", "moons", "--strategy", "random", "--out", "my  run"],
            loop, "run", "the finished rounds are kept in my  run; to go on",
        ),
        (
            ["reproduce", "digits", "--variant", "vaal (Ip 5)", "--out", "o"],
            runner, "run", "the finished rounds of all runs are kept in o/runs; to go on",
        ),
        (
            ["report", "a run", "--out", "o"],
            write, "load_run", "what was written in o is whole, the rest is missing; to write all",
        ),
        (
            ["bench", "ops", "--device", "cpu", "--out", "o"],
            bench, "_run", "what was printed is all there is, o got no table; to begin again",
        ),
        (
            ["select", "--scores", "s.npz", "--n", "2", "--out", "q.csv"],
            select, "write_query", "q.csv is written whole or not at all; to begin again",
        ),
        (
            ["score", "--model", "m:n", "--weights", "w", "--data", "digits", "--out", "a folder"],
            score, "score", "no shard was written to a folder yet; to go on",
        ),
        (
            ["query", "--project", "new", "--data", "folder:i", "--classes", "a,b"],
            config.ProjectConfig, "from_settings", "no project was begun in new yet; to go on",
        ),
        (
            ["query", "--project", "there"],
            begin, "Project", "the finished steps are kept in there; to go on",
        ),
        (
            ["label", "--project", "there", "a.csv"],
            project, "Project", "the finished steps are kept in there; to go on",
        ),
        (
            ["train", "--project", "there"],
            project, "Project", "the finished steps are kept in there; to go on",
        ),
        (
            ["predict", "--project", "there", "--out", "p.csv"],
            project, "Project", "p.csv is written whole or not at all; to begin again",
        ),
    ],
)  # fmt: skip
def test_what_is_kept_and_how_to_go_on(
    arguments, owner, name, message, monkeypatch, tmp_path, capfd
):
    monkeypatch.chdir(tmp_path)
    Path("i").mkdir()
    Path("there").mkdir()
    Path("there/config.json").touch()
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(owner, name, interrupted)
    assert main(arguments) == 130
    error = capfd.readouterr().err
    command = shlex.join(["vaal-ext", *arguments])
    assert error == f"vaal-ext: interrupted; {message}: {command}\n"
    assert shlex.split(error.partition(": vaal-ext ")[2]) == arguments
    assert not list(tmp_path.rglob(".bench-*"))


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        ("0", "; no shard was written to o yet; to go on, by torchrun as before: vaal-ext score "),
        ("1", ""),
    ],
)
def test_of_torchruns_processes_one_speaks_for_all(rank, said, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a job")
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(score, "score", interrupted)
    arguments = ["score", "--model", "m:n", "--weights", "w", "--data", "digits", "--out", "o"]
    assert main(arguments) == 130
    end = shlex.join(arguments[1:]) if said else ""
    assert capfd.readouterr().err == f"vaal-ext: interrupted{said}{end}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_is_ended_by_a_signal_and_goes_on(number, tmp_path):
    command = [
        "run", "--dataset", "moons", "--strategy", "random", "--rounds", "2", "--steps", "20",
        "--device", "cpu", "--out", str(tmp_path / "a run"),
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "vaal_ext", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background job ignores the signal, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("round 0/2"):
            process.send_signal(number)
            break
    error = process.communicate()[1]
    assert process.returncode == 130
    assert error.count("\n") == 1
    assert error.endswith(f"to go on: {shlex.join(['vaal-ext', *command])}\n")
    assert not list((tmp_path / "a run").glob(".*.tmp"))
    assert main(command) == 0
    assert len((tmp_path / "a run" / "rounds.csv").read_text().splitlines()) == 4


def test_sigterm_is_as_before_outside():
    before = signal.getsignal(signal.SIGTERM)
    with keeping("nothing"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_of_sigterm_that_is_not_pythons_stays(monkeypatch):
    """Of a program that has Python inside: Python knows it as None, and cannot set it again."""
    set_to = []
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda _, handler: set_to.append(handler))
    with (
        pytest.raises(Exception, match=r"^looked up; to go on$"),
        keeping(lambda: "looked up"),
    ):
        raise KeyboardInterrupt
    assert not set_to


def test_a_benchmark_ends_with_all_it_has_started(monkeypatch, tmp_path):
    """The process and its child hold a pipe, which is closed when both are gone."""
    started, held = tmp_path / "started", os.pipe()
    os.set_inheritable(held[1], True)
    script = (
        "import pathlib, subprocess, sys, time\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "subprocess.Popen(sleep, close_fds=False)\n"
        f"pathlib.Path({str(started)!r}).touch()\n"
        "time.sleep(600)\n"
    )

    def wait(process: subprocess.Popen, timeout: float | None = None) -> int:
        monkeypatch.undo()
        while not started.exists():
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    real = subprocess.Popen.__init__
    monkeypatch.setattr(
        subprocess.Popen, "__init__", lambda self, *a, **k: real(self, *a, **k, close_fds=False)
    )
    with pytest.raises(KeyboardInterrupt):
        bench._run([sys.executable, "-c", script], os.environ)
    os.close(held[1])
    assert os.read(held[0], 1) == b""  # waits for the last of them
    os.close(held[0])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_path_that_stdout_cannot_encode_is_printed_with_escapes(
    encoding, monkeypatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    numbers = np.linspace(0, 1, 20, dtype=np.float32)
    PoolScores(
        index=np.arange(20), ldr=numbers, pseudo_label=np.arange(20) % 2, entropy=numbers,
        margin=numbers, posterior_mean=np.array([0.5, 0.5]),
    ).save("scores.npz")  # fmt: skip
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
    assert main(["select", "--scores", "scores.npz", "--n", "4", "--out", "Łódź.csv"]) == 0
    sys.stdout.flush()
    assert (
        printed.getvalue()
        .decode(encoding)
        .startswith(
            "\\u0141\\xf3d\\u017a.csv: 4 of 20"
            if encoding == "ascii"
            else "\\u0141ód\\u017a.csv: 4"
        )
    )
    assert Path("Łódź.csv").is_file()
