"""Every kind of bad input to the commands: one line, status 2, nothing half written."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import NOT_A_FOLDER, run_arguments, score_arguments

from vaal_ext.cli.app import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command"),
        (["nope"], "nope"),
        (["select"], "Missing option"),
        (["select", "--scores", "a", "--n", "many", "--out", "b"], "--n"),
        (["report", "--out", "figures"], "Missing argument"),
        (["run", "--dataset", "moons", "--strategy", "vaal", "--order", "up", "--out", "r"], "up"),
    ],
)
def test_usage(refused: Callable[..., str], arguments: list[str], message: str) -> None:
    refused(arguments, message=message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "finite-difference", "xi": "0"}, "xi must be"),
        ({"xi": "0.1"}, "give --method finite-difference with it"),
        ({"eps": "nan"}, "eps must be"),
        (
            {"method": "fisher", "xi": "0.1"},
            "xi must be None with method='fisher', which makes no such step",
        ),
        ({"sign": "both"}, "--sign"),
        ({"eps": "-1"}, "eps must be"),
        ({"num-iters": "-1"}, "num_iters must be"),
        ({"seed": "-1"}, "seed must be"),
        ({"batch-size": "0"}, "batch_size must be"),
        ({"device": "quantum"}, "'quantum'"),
        ({"device": "meta"}, "'meta'"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"data": "npz:nowhere.npz"}, "no file nowhere.npz"),
        ({"data": "imagenet"}, "dataset must be one of"),
        ({"split": "test"}, "must have the key 'x_test'"),
        ({"weights": "nowhere.pt"}, "nowhere.pt: No such file"),
        ({"weights": "factories.py"}, "not a readable state dict"),
        ({"model": "factories"}, "package.module:factory"),
        ({"model": "no_such_module:net"}, "no_such_module"),
        ({"model": "factories:no_such_factory"}, "no callable 'no_such_factory'"),
        ({"model": "factories:number"}, "must return a torch.nn.Module, got int"),
        ({"model": "factories:needs_argument"}, "called without arguments failed"),
        ({"model": "factories:wider"}, "1.weight is [8, 12] in the file and [16, 12]"),
        ({"model": "factories:deeper"}, "the file lacks 4.weight (and 1 more)"),
        ({"model": "factories:shorter"}, "the network has no 3.weight (and 1 more)"),
        ({"out": str(NOT_A_FOLDER / "scores.npz")}, "scores.npz: Not a directory"),
        ({"out": "no/folder/scores.npz"}, "scores.npz: No such file or directory"),
        ({"out": "."}, ". holds no scores but is not empty"),
        ({"out": "/dev/full"}, "/dev/full is not a folder"),
    ],
)
def test_score_refuses(refused: Callable[..., str], changes: dict[str, str], message: str) -> None:
    refused(score_arguments(**changes), message=message)


def test_samples_that_do_not_fit_the_network(refused: Callable[..., str]) -> None:
    np.savez("flat.npz", x=np.zeros((4, 5), np.float32))
    refused(score_arguments(data="npz:flat.npz"), message="does not take samples of shape [5]")


def exploding() -> object:
    class Explosive:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("exploded",)

    return Explosive()


@pytest.mark.parametrize("what", ["truncated", "pickled", "text", "array"])
@pytest.mark.parametrize("command_name", ["score", "run", "select"])
def test_bad_npz(refused: Callable[..., str], what: str, command_name: str) -> None:
    if what == "truncated":
        whole = Path("pool.npz").read_bytes()
        Path("bad.npz").write_bytes(whole[: len(whole) // 2])
    elif what == "pickled":
        np.savez("bad.npz", x=np.array([exploding()], dtype=object), y=np.zeros(1, int))
    elif what == "text":
        Path("bad.npz").write_text("x,y\n1,2\n")
    else:
        np.save("bad.npy", np.zeros((4, 3)))
        os.rename("bad.npy", "bad.npz")
    if command_name == "score":
        refused(score_arguments(data="npz:bad.npz"), message="bad.npz is no")
    elif command_name == "run":
        refused(run_arguments(dataset="npz:bad.npz"), message="bad.npz is no")
    else:
        refused(
            ["select", "--scores", "bad.npz", "--n", "1", "--out", "q.csv"],
            message="bad.npz is no",
        )


def test_pickled_scores_and_weights_are_not_loaded(refused: Callable[..., str]) -> None:
    names = ("index", "ldr", "pseudo_label", "entropy", "margin", "posterior_mean")
    np.savez("scores.npz", **{name: np.array([exploding()], dtype=object) for name in names})
    arguments = ["select", "--scores", "scores.npz", "--n", "1", "--out", "q.csv"]
    refused(arguments, message="scores.npz is no")
    torch.save({"weight": exploding()}, "bad.pt")
    refused(score_arguments(weights="bad.pt"), message="not a readable state dict")
    Path("plain.pt").write_bytes(pickle.dumps(exploding()))
    refused(score_arguments(weights="plain.pt"), message="not a readable state dict")
    assert not Path("exploded").exists()


def test_weights_that_are_no_state_dict(refused: Callable[..., str]) -> None:
    torch.save(torch.zeros(3), "tensor.pt")
    refused(score_arguments(weights="tensor.pt"), message="must hold a state dict")
    whole = Path("net.pt").read_bytes()
    Path("half.pt").write_bytes(whole[: len(whole) // 2])
    refused(score_arguments(weights="half.pt"), message="not a readable state dict")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n", "0"], "n must be at least 1"),
        (["--n", "41"], "at most the 40 samples"),
        (["--n", "5", "--percentile", "100"], "percentile must be"),
        (["--n", "5", "--percentile", "-1"], "percentile must be"),
        (["--n", "5", "--class-prior", "fair"], "class-prior must be"),
        (["--n", "5", "--class-prior", "1,1"], "one weight for each of the 3 classes"),
        (["--n", "5", "--class-prior", "0,0,0"], "weight above 0"),
    ],
)
def test_select_refuses(refused: Callable[..., str], options: list[str], message: str) -> None:
    assert main(score_arguments()) == 0
    select = ["select", "--scores", "scores.npz"]
    refused([*select, *options, "--out", "q.csv"], message=message)


def test_scores_without_a_key(refused: Callable[..., str]) -> None:
    assert main(score_arguments()) == 0
    with np.load("scores.npz") as archive:
        kept = {name: archive[name] for name in archive.files if name != "entropy"}
    np.savez("less.npz", **kept)
    select = ["select", "--n", "2", "--out", "q.csv"]
    refused([*select, "--scores", "less.npz"], message="it lacks entropy")
    np.savez("short.npz", **kept, entropy=np.zeros(3, np.float32))
    refused([*select, "--scores", "short.npz"], message="entropy has 3 entries")
    refused([*select, "--scores", "nowhere.npz"], message="nowhere.npz: No such file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "imagenet"}, "dataset must be one of"),
        ({"strategy": "magic"}, "strategy must be one of"),
        ({"dataset": "mnist"}, "below it MNIST/raw with train-images-idx3-ubyte"),
        ({"dataset": "mnist", "data-root": "nowhere"}, "nowhere/MNIST/raw"),
        ({"dataset": "fashion-mnist", "data-root": "nowhere"}, "nowhere/FashionMNIST/raw"),
        ({"dataset": "svhn", "data-root": "nowhere"}, "nowhere; missing: train_32x32.mat"),
        ({"dataset": "cifar10", "data-root": "nowhere"}, "nowhere/cifar-10-batches-py"),
        ({"dataset": "folder:nowhere"}, "nowhere/CLASS, or in"),
        ({"rounds": "0"}, "rounds must be"),
        ({"initial": "0"}, "initial must be"),
        ({"query-size": "100000"}, "the pool of moons has 800"),
        ({"device": "cuda:99"}, "there is no device cuda:99"),
        ({"strategy": "vaal", "eps": "inf"}, "eps must be"),
        ({"strategy": "entropy", "percentile": "80"}, "--percentile is for the strategy vaal, got"),
        ({"strategy": "random+vat", "eps": "0"}, "--eps is for the strategy vaal"),
        ({"strategy": "random", "preset": "paper"}, "--preset is for the strategy vaal"),
        ({"strategy": "dfal", "order": "random"}, "--order is for the strategy vaal"),
        ({"strategy": "margin", "sign": "max"}, "--sign is for the strategy vaal"),
        ({"strategy": "vaal", "method": "finite-difference", "xi": "-1"}, "xi must be"),
        ({"strategy": "vaal", "percentile": "101"}, "percentile must be"),
        ({"out": str(NOT_A_FOLDER)}, "Not a directory"),
        ({"out": "factories.py"}, "not a folder"),
        ({"out": "."}, "not empty"),
    ],
)
def test_run_refuses(refused: Callable[..., str], changes: dict[str, str], message: str) -> None:
    refused(run_arguments(**changes), message=message)


def test_folder_of_a_different_run(refused: Callable[..., str]) -> None:
    assert main(run_arguments()) == 0
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    refused(run_arguments(seed="1"), message="seed is 0 there and 1 here")
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before


def test_report_refuses(refused: Callable[..., str]) -> None:
    assert main(run_arguments()) == 0
    Path("empty").mkdir()
    refused(["report", "empty", "--out", "figures"], message="empty is not a run")
    refused(["report", "run", "run", "--out", "figures"], message="the same seed")
    refused(["report", "run", "--out", str(NOT_A_FOLDER)], message="Not a directory")
    refused(["report", "run", "--out", "factories.py"], message="factories.py")


def test_no_space_left(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(score_arguments()) == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    space = "No space left on device"
    select = ["select", "--scores", "scores.npz", "--n", "2", "--out", "q.csv"]
    assert "q.csv" in refused(select, message=space)
    assert "other.npz" in refused(score_arguments(out="other.npz"), message=space, begun=True)


@pytest.mark.parametrize("name", ["score", "report"])
def test_file_size_limit(place: Path, name: str) -> None:
    """A real write that fails in the middle: nothing half written, one line about it."""
    if name == "score":
        np.savez("pool.npz", x=np.zeros((2000, 12), np.float32) + np.arange(12, dtype=np.float32))
        arguments, made = score_arguments(), {"pool.npz", "net.pt", "factories.py"}
    else:
        assert main(run_arguments()) == 0
        arguments, made = ["report", "run", "--out", "figures"], set()
    limit = 8000  # bytes: more than the tables, less than the scores and the pictures
    done = subprocess.run(
        [sys.executable, "-m", "vaal_ext", *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    *before, error = done.stderr.splitlines()
    # What is said when the scoring begins, and by the looks at the first batch.
    expected = ("scoring ", "the network gets", "warning: LDR")
    assert all(line.startswith(expected) for line in before)
    assert "File too large" in error
    if name == "score":
        assert {path.name for path in place.iterdir() if path.is_file()} == made
    else:
        assert {path.name for path in Path("figures").iterdir()} == {"accuracy.csv", "area.csv"}
