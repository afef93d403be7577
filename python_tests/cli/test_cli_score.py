"""What `score` takes and says: its radius, names of data, its first line, Ctrl-C, file names."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import score_arguments

import vaal_ext
from vaal_ext.cli.app import main
from vaal_ext.pool.scores import PoolScores


def arguments(*without: str, **changes: str) -> list[str]:
    """Those of a score command, without the options named."""
    given = score_arguments(**changes)
    for name in without:
        at = given.index(f"--{name}")
        del given[at : at + 2]
    return given


# --- the radius -------------------------------------------------------------------------------


def test_the_radius_is_measured_on_ones_own_data(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.load("pool.npz")["x"]
    radius = float(f"{vaal_ext.small_radius(x):.3g}")
    lengths = f"eps {radius:g} (a fiftieth of the samples' length)"
    steps = {"method": "finite-difference"}
    for given, told in (
        (arguments("eps"), lengths + "\n"),
        (arguments(eps="auto"), lengths + "\n"),
        (arguments("eps", **steps), f"{lengths}, xi {radius / 10:.3g}\n"),
    ):
        assert main(given) == 0
        assert told in capsys.readouterr().err
    auto = PoolScores.load("scores.npz")
    assert main(arguments(eps=f"{radius}", xi=f"{radius / 10:.3g}", **steps)) == 0
    np.testing.assert_array_equal(PoolScores.load("scores.npz").ldr, auto.ldr)
    # A pool a hundred times as large has a radius a hundred times as large, mapped or not.
    np.save("large.npy", 100 * x)
    assert main(arguments("eps", data="npy:large.npy")) == 0
    large = float(f"{vaal_ext.small_radius(100 * x):.3g}")
    assert f"eps {large:g} (a fiftieth" in capsys.readouterr().err
    assert large > 50 * radius


def test_a_number_is_taken_and_xi_goes_with_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(eps="0.3", method="finite-difference")) == 0
    assert "eps 0.3, xi 0.03\n" in capsys.readouterr().err
    assert main(arguments("eps", method="fisher")) == 0
    assert "(a fiftieth of the samples' length)\n" in capsys.readouterr().err


def test_pixels_are_measured_as_the_network_sees_them(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("white.npy", np.full((4, 3, 2, 2), 255, np.uint8))
    given = arguments("eps", data="npy:white.npy")
    assert main([*given, "--mean", "0.5", "--std", "0.25"]) == 0
    # (1 - 0.5)/0.25 = 2 in each of 12 numbers: 0.02·sqrt(48)
    assert "eps 0.139 (" in capsys.readouterr().err


def test_a_begun_folder_goes_on_with_its_own_search(
    place: Path, capfd: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    """Also one that an older version began, whose lengths were other ones."""
    sizes = {"shard-size": "8", "out": "shards"}
    search = {"method": "finite-difference", "xi": "0.02", "num-iters": "3", "eps": "0.1"}
    assert main(arguments(**sizes, **search)) == 0
    os.remove("shards/shard_00002.npz")
    assert main(arguments("eps", **sizes)) == 0
    assert "eps 0.1, xi 0.02; 1 shards are still to be done\n" in capfd.readouterr().err
    refused(
        arguments("eps", **sizes, method="direct"),
        message="method is 'finite-difference' there and 'direct' here",
    )
    assert json.loads(Path("shards/manifest.json").read_text())["identity"]["eps"] == 0.1
    assert Path("shards/shard_00002.npz").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": "large"}, "eps must be auto or a number, got 'large'"),
        ({"eps": "inf"}, "eps must be finite"),
        ({"eps": "0"}, "eps must be finite and above 0, got 0"),
        ({"data": "npz:zeros.npz", "eps": "auto"}, "0 throughout"),
    ],
)
def test_radius_that_cannot_be(
    refused: Callable[..., str], changes: dict[str, str], message: str
) -> None:
    np.savez("zeros.npz", x=np.zeros((4, 12), np.float32))
    refused(arguments(**changes), message=message)


# --- names of data ----------------------------------------------------------------------------


def test_home_is_found_in_paths_of_data(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaal_ext.experiment.config import RunConfig
    from vaal_ext.experiment.datasets.load import load_dataset, load_pool
    from vaal_ext.labelling.config import ProjectConfig

    monkeypatch.setenv("HOME", str(place))
    assert main(arguments(data="npz:~/pool.npz")) == 0
    np.save("pool.npy", np.zeros((4, 3), np.float32))
    assert load_pool("npy:~/pool.npy").shape == (4, 3)
    np.savez("labelled.npz", x=np.zeros((20, 3), np.float32), y=np.arange(20) % 2)
    assert load_dataset("npz:~/labelled.npz").num_classes == 2
    resolved = RunConfig(dataset="npz:~/labelled.npz", strategy="random").resolved().settings
    assert resolved.dataset == f"npz:{place.resolve() / 'labelled.npz'}"
    project = ProjectConfig.from_settings({"images": "~", "classes": ["cat", "dog"]})
    assert project.images == str(place.resolve())
    for load in (load_pool, load_dataset):
        with pytest.raises(FileNotFoundError, match=str(place / "none")):
            load("folder:~/none")


@pytest.mark.parametrize(
    ("data", "meant"),
    [
        ("pool2k", "did you mean folder:pool2k?"),
        ("~/pool2k", "did you mean folder:~/pool2k?"),
        ("pool.npz", "did you mean npz:pool.npz?"),
        ("pool.npy", "did you mean npy:pool.npy?"),
        ("mnsit", "did you mean mnist?"),
        ("Fashion_MNIST", "did you mean fashion-mnist?"),
        ("fodler:pool2k", "did you mean folder:pool2k?"),
        ("nzp:pool.npz", "did you mean npz:pool.npz?"),
        ("npz:pool2k", "pool2k is a folder, which is given as folder:pool2k"),
        ("npy:pool2k", "pool2k is a folder, which is given as folder:pool2k"),
        ("folder:pool.npz", "pool.npz is a file, which is given as npz:pool.npz"),
    ],
)
def test_what_was_meant_is_suggested(
    refused: Callable[..., str],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: str,
    meant: str,
) -> None:
    monkeypatch.setenv("HOME", str(place))
    Path("pool2k").mkdir()
    np.save("pool.npy", np.zeros((4, 3), np.float32))
    refused(arguments(data=data), message=meant)
    if "npy" not in data:  # which is for scoring alone
        run = ["run", "--dataset", data, "--strategy", "random", "--out", "run"]
        # Which makes the path an absolute one first, where it stands behind a kind.
        refused(run, message=meant if "mean" in meant else "which is given as")


def test_nothing_is_suggested_for_nothing(refused: Callable[..., str]) -> None:
    assert "mean" not in refused(arguments(data="imagenet"), message="dataset must be one of")


# --- what it says -----------------------------------------------------------------------------


def test_it_says_at_once_what_it_will_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = "scoring 40 samples of npz:pool.npz to scores.npz, eps 0.5"
    assert main(arguments()) == 0
    assert capsys.readouterr().err == f"{first}\n"
    assert main(arguments(**{"batch-size": "auto"})) == 0
    assert capsys.readouterr().err.startswith(f"{first}; some trials of what is auto come first\n")


SLOW = """
import time
from factories import net as plain
def net():
    made = plain()
    made.register_forward_pre_hook(pause)
    return made
calls = 0
def pause(*_):
    global calls
    calls += 1
    if calls > {calls}:
        open("waiting", "w").close()
        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("out", ["scores.npz", "shards"])
def test_interrupted_it_says_what_is_kept(place: Path, out: str, number: int) -> None:
    """The network stops for a minute: at once, or in the second shard. (A batch runs it 3 times
    with one iteration; the command tries it once before, and the first batch is looked at by 3.)
    """
    Path("slow.py").write_text(SLOW.format(calls=1 if out == "scores.npz" else 1 + 3 + 3))
    given = arguments(model="slow:net", out=out, **{"num-iters": "1"})
    given += [] if out == "scores.npz" else ["--shard-size", "8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vaal_ext", *given],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores the signal, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("scoring 40 samples")
    while not Path("waiting").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    if out == "scores.npz":
        assert "vaal-ext: interrupted; nothing was written to scores.npz (with a folder" in stderr
        assert stderr.endswith(f"; to begin again: {shlex.join(['vaal-ext', *given])}\n")
        assert not Path(out).exists()
        return
    line = f"1 of 5 shards are kept in shards; to go on: {shlex.join(['vaal-ext', *given])}"
    assert stderr.endswith(f"vaal-ext: interrupted; {line}\n")
    Path("slow.py").write_text(SLOW.format(calls=1000))
    assert main(given) == 0
    assert vaal_ext.read_shards("shards").num_samples == 40


def test_flags_are_shown_as_flags(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ("score", "select", "run", "reproduce", "bench", "query", "label", "train")
    for command in commands:
        assert main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "--help" in shown
        assert "bool" not in shown.lower()


# --- names of files ---------------------------------------------------------------------------


class NamedPool(torch.utils.data.Dataset):
    names = [f"photos/{i}.png" for i in range(6)]  # noqa: RUF012

    def __len__(self) -> int:
        return 6

    def __getitem__(self, position: int) -> torch.Tensor:
        return torch.full((3, 2, 2), 40 * position, dtype=torch.uint8)


def test_names_travel_from_the_pool_to_the_query(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaal_ext.cli.work.score.load_pool", lambda *_, **options: NamedPool())
    for out in ("scores.npz", "shards"):
        assert main(arguments("eps", data="folder:photos", out=out)) == 0
        assert main(["select", "--scores", out, "--n", "3", "--out", "query.csv"]) == 0
        with open("query.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 3
        assert all(row["name"] == f"photos/{row['index']}.png" for row in rows)
