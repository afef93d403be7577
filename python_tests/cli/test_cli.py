"""The commands do what they say, and end as processes should."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run_arguments, score_arguments
from rounding import scores_apart
from torch import nn

from vaal_ext.cli.app import main
from vaal_ext.pool.scores import PoolScores


def test_score_then_select(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(score_arguments()) == 0
    assert "40 samples scored" in capsys.readouterr().out
    scores = PoolScores.load("scores.npz")
    np.testing.assert_array_equal(scores.index, np.arange(40))
    assert scores.num_classes == 3
    assert (scores.ldr > 0).all()

    assert main(["select", "--scores", "scores.npz", "--n", "6", "--out", "query.csv"]) == 0
    with open("query.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "pseudo_label", "ldr", "percentile_rank", "entropy"]
    assert len({row["index"] for row in rows}) == 6
    for row in rows:
        i = int(row["index"])
        assert int(row["pseudo_label"]) == scores.pseudo_label[i]
        assert np.float32(row["ldr"]) == scores.ldr[i]
        assert np.float32(row["entropy"]) == scores.entropy[i]
        rank = 100 * np.mean(scores.ldr <= scores.ldr[i])
        assert float(row["percentile_rank"]) == pytest.approx(rank)


@pytest.mark.rounding
def test_score_agrees_with_python(place: Path) -> None:
    from vaal_ext import LDRScorer

    assert main(score_arguments(seed="7", **{"num-iters": "2", "batch-size": "7"})) == 0
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    net.load_state_dict(torch.load("net.pt", weights_only=True))
    x = torch.from_numpy(np.load("pool.npz")["x"])
    settings = {"eps": 0.5, "num_iters": 2, "seed": 7, "backend": "reference"}
    expected = LDRScorer(net, **settings, batch_size=7).score(x, progress=False)
    np.testing.assert_array_equal(PoolScores.load("scores.npz").ldr, expected.ldr)


def test_score_by_fisher_and_both_signs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vaal_ext import LDRScorer

    arguments = score_arguments(method="fisher", sign="max")
    assert main([*arguments, "--preset", "paper"]) == 0  # whose xi is not for this method
    assert "fisher, eps 0.5)" in capsys.readouterr().out
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    net.load_state_dict(torch.load("net.pt", weights_only=True))
    x = torch.from_numpy(np.load("pool.npz")["x"])
    scorer = LDRScorer(net, eps=0.5, method="fisher", sign="max", backend="reference")
    expected = scorer.score(x, progress=False)
    np.testing.assert_array_equal(PoolScores.load("scores.npz").ldr, expected.ldr)


@pytest.mark.rounding
def test_score_of_pixels_and_of_the_test_part(place: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)
    np.savez("pixels.npz", x=pixels, x_test=pixels[:2] / 255.0)
    assert main(score_arguments(data="npz:pixels.npz", out="a.npz")) == 0
    assert main(score_arguments(data="npz:pixels.npz", out="b.npz", split="test")) == 0
    whole, test = PoolScores.load("a.npz"), PoolScores.load("b.npz")
    np.testing.assert_array_equal(test.index, [0, 1])
    np.testing.assert_allclose(test.entropy, whole.entropy[:2], rtol=1e-5)


@pytest.mark.rounding
def test_score_of_a_compiled_network(place: Path) -> None:
    arguments = score_arguments(method="finite-difference", xi="0.5", **{"num-iters": "1"})
    assert main(arguments) == 0
    plain = PoolScores.load("scores.npz")
    torch._dynamo.utils.counters.clear()
    assert main([*arguments, "--compile"]) == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    net.load_state_dict(torch.load("net.pt", weights_only=True))
    x, ldr = torch.from_numpy(np.load("pool.npz")["x"]), torch.from_numpy(plain.ldr)
    allowed = scores_apart(net, x, ldr, xi=0.5, eps=0.5, num_iters=1)
    error = np.abs(PoolScores.load("scores.npz").ldr / plain.ldr - 1)
    assert (error <= allowed.numpy()).all()
    assert np.median(error) <= 1e-4  # which is less than the bound: nothing but rounding differs


def test_score_takes_defaults_from_the_data_set(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    (place / "small.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict(), "small.pt")
    arguments = ["--model", "small:net", "--weights", "small.pt", "--out", "s.npz"]
    assert main(["score", *arguments, "--data", "digits", "--backend", "reference"]) == 0
    from vaal_ext.experiment.defaults import settings_for

    settings = settings_for("digits")
    assert f"direct, eps {settings.eps:g}" in capsys.readouterr().out


def test_nonfinite_samples_are_skipped_on_request(place: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    state = {f"layers.{key}": value for key, value in net.state_dict().items()}
    torch.save(state, "broken.pt")
    arguments = {"model": "factories:nan_where_negative", "weights": "broken.pt"}
    assert main(score_arguments(**arguments)) == 2
    assert main(score_arguments(**arguments, **{"on-nonfinite": "skip"})) == 0
    scores = PoolScores.load("scores.npz")
    left_out = np.isnan(scores.ldr)
    assert 0 < left_out.sum() < 40
    n = str(40 - left_out.sum())
    assert main(["select", "--scores", "scores.npz", "--n", n, "--out", "q.csv"]) == 0
    with open("q.csv", newline="") as file:
        picked = [int(row["index"]) for row in csv.DictReader(file)]
    assert sorted(picked) == np.flatnonzero(~left_out).tolist()


def test_select_options(place: Path) -> None:
    assert main(score_arguments()) == 0
    common = ["select", "--scores", "scores.npz", "--n", "5"]
    scores = PoolScores.load("scores.npz")

    def picked(*options: str) -> list[int]:
        assert main([*common, *options, "--out", "q.csv"]) == 0
        with open("q.csv", newline="") as file:
            return [int(row["index"]) for row in csv.DictReader(file)]

    roughest = np.argsort(-scores.ldr, kind="stable")[:5].tolist()
    assert picked("--class-prior", "none", "--order", "descending") == roughest
    first = picked("--class-prior", "1,0,0", "--percentile", "0")
    assert (scores.pseudo_label[first] == 0).sum() == min(5, (scores.pseudo_label == 0).sum())
    assert picked("--order", "random", "--seed", "1") == picked("--order", "random", "--seed", "1")


def test_run_then_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(run_arguments()) == 0
    assert main(run_arguments(strategy="vaal", out="vaal", order="random")) == 0
    capsys.readouterr()
    assert main(["report", "run", "vaal", "--out", "figures"]) == 0
    out = capsys.readouterr().out
    assert "random" in out
    assert "vaal" in out
    assert "unfinished" not in out
    assert {path.name for path in Path("figures").iterdir()} == {
        "accuracy.csv",
        "area.csv",
        "learning_curves.png",
        "ldr_vaal.png",
        "statistics.csv",
        "report.html",
        "statistics.md",
        "win_matrix.png",
    }


def test_info_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for what in ("vaal_ext:", "python:", "torch:", "numpy:", "_ops_cpu:", "_ops_cuda:", "_C:"):
        assert what in out
    assert torch.__version__.split("+")[0] in out


def test_info_on_a_broken_build(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vaal_ext.cli.work.info._PACKAGE", tmp_path)
    for name in ("vaal_ext._C", "vaal_ext.ops._library"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert out.count("missing") == 3
    assert out.count("not usable") == 2


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from vaal_ext.cli.app import main; status = main(['run', '--help']);"
        "heavy = {'torch', 'matplotlib', 'sklearn', 'torchvision', 'scipy'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--query-size" in done.stdout


def test_interrupted_run_says_so_and_goes_on(place: Path) -> None:
    arguments = run_arguments(dataset="moons", steps="100", rounds="40")
    process = subprocess.Popen(
        [sys.executable, "-m", "vaal_ext", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores the signal, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("run: random on moons, 40 queries")
    assert process.stdout.readline().startswith("round")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "vaal-ext: interrupted; the finished rounds are kept in run; to go on: " in stderr
    assert Path("run/rounds.csv").exists()
    assert not list(Path("run").glob(".*.tmp"))


def test_bugs_keep_their_traceback(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("vaal_ext.cli.work.score.score", bug)
    with pytest.raises(AssertionError, match="a bug"):
        main(score_arguments())


def test_traceback_on_request(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAAL_TRACEBACK", "1")
    with pytest.raises(ValueError, match="xi must be"):
        main(score_arguments(method="finite-difference", xi="0"))


def test_reader_that_goes_away() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "vaal_ext", "info"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert done.returncode == 1
    assert done.stderr == ""


def test_preset_paper_fills_what_is_not_given(tmp_path, monkeypatch):
    """The paper's xi = eps = 2, Ip = 5, PRT = 90; a number that is given wins."""
    from vaal_ext.experiment import loop

    seen = []
    monkeypatch.setattr(loop, "run", lambda config, out, tensorboard: seen.append(config))
    command = ["run", "--dataset", "moons", "--strategy", "vaal", "--out", str(tmp_path / "run")]
    for extra in (["--preset", "paper"], ["--preset", "paper", "--eps", "0.5"]):
        assert main([*command, *extra]) == 0
    assert [(c.xi, c.eps, c.num_iters, c.percentile) for c in seen] == [
        (2.0, 2.0, 5, 90.0),
        (2.0, 0.5, 5, 90.0),
    ]


def test_preset_paper_reaches_the_regulariser(tmp_path, monkeypatch):

    from vaal_ext.experiment import loop

    seen = []
    monkeypatch.setattr(
        loop, "run", lambda config, *_, **__: seen.append(config.resolved().settings)
    )
    command = ["run", "--dataset", "moons", "--preset", "paper", "--out", str(tmp_path / "run")]
    assert main([*command, "--strategy", "vaal+vat", "--vat-eps", "0.5"]) == 0
    assert main([*command, "--strategy", "vaal"]) == 0
    assert [(c.vat_weight, c.vat_xi, c.vat_eps, c.vat_num_iters) for c in seen] == [
        (1.0, 2.0, 0.5, 5),
        (None, None, None, None),
    ]
