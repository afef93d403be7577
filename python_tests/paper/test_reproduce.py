"""`vaal-ext reproduce`: what is planned, what is run, what is written."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from csv_files import rows as read
from made_runs import run_of
from other_process import locked_elsewhere
from PIL import Image

from vaal_ext.cli.app import main
from vaal_ext.experiment.config import RunConfig
from vaal_ext.paper import figures
from vaal_ext.paper.paper import ANNOTATIONS, PRINTED
from vaal_ext.paper.plan import EXHIBITS, exhibits_named
from vaal_ext.paper.planned import Overrides, plan_runs
from vaal_ext.paper.runner import run_missing
from vaal_ext.paper.tables import markdown_table, table_cells

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

SMALL = ["--seeds", "1", "--rounds", "2", "--steps", "2", "--pool-size", "150"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Random images with labels that their brightest row tells: enough for 100 + 2 x 100 labels."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    rng = np.random.default_rng(0)
    y = np.arange(500) % 10
    x = rng.random((500, 1, 10, 10), dtype=np.float32)
    x[np.arange(500), 0, y] += 1
    np.savez(path, x=x, y=y)
    return f"npz:{path}"


def planned(names: list[str], data: str, out: Path, **settings: object) -> list:
    overrides = Overrides(data=data, **{"seeds": 1, "rounds": 2, **settings})
    return plan_runs(list(exhibits_named(names).values()), overrides, out)


def test_exhibits_share_the_runs_they_have_in_common(images, tmp_path):
    """PRT 90, Ip 5 and uniform sampling are one run; the direct search of Fig. 7 is Table II's."""
    names = {
        name: {item.folder for item in planned([name], images, tmp_path)}
        for name in ("fig6", "fig7", "fig9", "fig10")
    }
    tables = {item.folder for item in planned(["table2"], images, tmp_path)}
    assert len(tables & names["fig7"]) == 1
    common = set.intersection(*names.values())
    assert len(common) == 1
    assert common.pop().parts[-2].startswith("vaal,rounds=2")
    together = planned(list(names), images, tmp_path)
    assert {item.folder for item in together} == set.union(*names.values())
    assert len(together) == len({item.folder for item in together})


def test_a_folder_is_named_after_what_differs(images, tmp_path):
    items = planned(["fig6"], images, tmp_path, pool_size=150)
    names = {item.label: item.folder.parts[-2] for item in items}
    assert names["PRT 70"] == "vaal,rounds=2,pool_size=150,percentile=70.0"
    assert names["PRT 90"] == "vaal,rounds=2,pool_size=150"
    items = plan_runs([EXHIBITS["digits"]], Overrides(seeds=1), tmp_path)
    names = {item.label: item.folder.parts[-2] for item in items}
    assert names["vaal (Ip 5)"] == "vaal"
    assert names["vaal"] == "vaal,xi=None,num_iters=0,method=direct"
    assert names["vaal (paper)"] == "vaal,xi=2.0,eps=2.0"


def test_the_paper_s_settings_are_the_plan():
    """Sections IV.A and IV.B: 10 + 10 labels, PRT 70 on the toys; 100 + 10 x 100, Ip 1 to 6."""
    for name in ("fig3", "fig4", "fig5"):
        (exhibit,) = exhibits_named([name]).values()
        assert exhibit.rounds == 1
    assert [v["percentile"] for v in EXHIBITS["fig6"].variants.values()] == [70, 80, 90, 99]
    iterations = EXHIBITS["fig7"].variants
    assert [iterations[f"Ip {n}"]["num_iters"] for n in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    assert [v["class_prior"] for v in EXHIBITS["fig9"].variants.values()] == [None, "uniform"]
    for name, dataset in (("table2", "mnist"), ("table3", "svhn"), ("table4", "cifar10")):
        exhibit = EXHIBITS[name]
        assert exhibit.datasets == (dataset,)
        assert exhibit.rounds == 10
        assert set(PRINTED[dataset]) <= set(exhibit.variants)
        assert all(len(row) == len(ANNOTATIONS) for row in PRINTED[dataset].values())
    assert EXHIBITS["digits"].variants["vaal (paper)"]["eps"] == 2.0


def test_the_toy_figures(tmp_path, capsys):
    command = ["reproduce", "fig3", "fig5", "--out", str(tmp_path), "--seeds", "2", "--steps", "3"]
    assert main(command) == 0
    for name in ("fig3/fig3.png", "fig5/fig5.png"):
        assert Image.open(tmp_path / name).size[0] > 500
    points = read(tmp_path / "fig3" / "fig3.csv")
    for strategy in ("random", "vaal"):
        mine = [row for row in points if row["strategy"] == strategy]
        assert [sum(row[c] == "True" for row in mine) for c in ("labelled_before", "queried")] == [
            10, 10
        ]  # fmt: skip
    rows = read(tmp_path / "fig5" / "fig5.csv")
    assert len(rows) == 4 * 3 * 2 * 3  # data sets, strategies, seeds, updates
    # The network that is watched is the run's: after the last update its error is the run's.
    for row in rows:
        if row["update"] == "3":
            name = {
                "random": "random,rounds=1,steps=3",
                "vaal": "vaal,rounds=1,xi=None,num_iters=0,method=direct,steps=3",
                "vaal (Ip 5)": "vaal,rounds=1,steps=3",
            }[row["strategy"]]
            folder = tmp_path / "runs" / row["dataset"] / name / f"seed_{row['seed']}"
            accuracy = float(read(folder / "rounds.csv")[1]["test_accuracy"])
            assert float(row["test_error"]) == pytest.approx(1 - accuracy, abs=1e-6)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/state.pt")}
    capsys.readouterr()
    assert main(command) == 0  # nothing is run again
    assert "24 of 24 runs are finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/state.pt")}


def test_the_image_exhibits(images, tmp_path, capsys):
    names = ["fig6", "fig9", "fig10", "table2"]
    assert main(["reproduce", *names, "--out", str(tmp_path), "--data", images, *SMALL]) == 0
    printed = capsys.readouterr().out
    for name in names:
        assert Image.open(tmp_path / name / f"{name}.png").size[0] > 500
        assert read(tmp_path / name / "statistics_mnist" / "runs.csv")
        page = tmp_path / name / "statistics_mnist" / "report.html"
        assert "<h1>Active learning on mnist</h1>" in page.read_text()
        assert f"{page}: " in printed
    cells = read(tmp_path / "table2" / "table2.csv")
    variants = EXHIBITS["table2"].variants
    assert [cell["strategy"] for cell in cells] == list(variants)  # 100 annotations each
    by_name = {cell["strategy"]: cell for cell in cells}
    assert by_name["vaal"]["paper"] == "91.16"
    assert by_name["margin"]["paper"] == ""
    rounds = read(tmp_path / "table2" / "statistics_mnist" / "runs.csv")
    assert [row["strategy"] for row in rounds[::3]] == list(variants)  # two queries, three rounds
    (row,) = [r for r in rounds if (r["strategy"], r["labels"]) == ("vaal", "200")]
    assert row["seed"] == "0"
    assert 100 * float(row["accuracy"]) == pytest.approx(float(by_name["vaal"]["mean"]))
    text = (tmp_path / "table2" / "table2.md").read_text()
    assert "150 samples of the pool, drawn anew" in text
    assert "2 steps a training" in text
    assert text.startswith("## Table II: MNIST, on npz:images.npz\n")
    assert "in parentheses the paper's, on mnist itself, bold" in text
    assert text in printed


def test_all_on_a_small_budget(monkeypatch, tmp_path, capsys):
    """The whole path, three queries and two seeds, on images of 12 x 12 in the data sets' place."""

    def read_images(name, data_root):
        rng = np.random.default_rng(len(name))
        channels = 1 if name == "mnist" else 3
        return tuple(
            (
                torch.from_numpy(rng.integers(0, 256, (n, channels, 12, 12), dtype=np.uint8)),
                torch.arange(n) % 10,
            )
            for n in (600, 100)
        )

    monkeypatch.setattr("vaal_ext.experiment.datasets.load.read_images", read_images)
    monkeypatch.setattr("vaal_ext.experiment.datasets.load._IMAGES_VAL", 100)
    budget = ["--seeds", "2", "--rounds", "3", "--steps", "2", "--pool-size", "120"]
    command = ["reproduce", "all", "--data-root", "anywhere", "--out", str(tmp_path), *budget]
    assert main(command) == 0
    assert "p(y = 1 | x) before and after a query, seed 0" in capsys.readouterr().out
    paper = [name for name in EXHIBITS if name.startswith(("fig", "table"))]
    assert {path.parent.name for path in tmp_path.glob("*/*.png")} == set(paper)
    for name in paper:
        assert Image.open(tmp_path / name / f"{name}.png").size[0] > 500
    for name in ("table2", "table3", "table4"):
        cells = read(tmp_path / name / f"{name}.csv")
        assert [(cell["strategy"], cell["annotations"]) for cell in cells] == [
            (variant, annotations)
            for variant in EXHIBITS[name].variants
            for annotations in ("100", "300")
        ]
        assert {cell["seeds"] for cell in cells} == {"2"}


def test_what_is_there_is_shown_while_the_rest_runs(images, tmp_path, capsys):
    command = ["reproduce", "table2", "--out", str(tmp_path), "--data", images, *SMALL]
    assert main([*command, "--show-only"]) == 2
    assert "has no run of 'Table II: MNIST' with a finished round" in capsys.readouterr().err
    assert main([*command, "--variant", "random"]) == 0
    assert main([*command, "--show-only"]) == 0
    assert {cell["strategy"] for cell in read(tmp_path / "table2" / "table2.csv")} == {"random"}
    assert len(list(tmp_path.glob("runs/**/rounds.csv"))) == 1


def test_a_table_that_the_paper_has_not_says_nothing_of_the_paper(images, tmp_path):
    command = ["reproduce", "fashion", "--out", str(tmp_path), "--data", images, *SMALL]
    assert main([*command, "--variant", "random"]) == 0
    text = (tmp_path / "fashion" / "fashion.md").read_text()
    assert text.startswith("## Fashion-MNIST, on npz:images.npz\n")
    assert "mean over 1 seed" in text
    assert "paper" not in text


def test_a_table_of_ragged_seeds_says_so(images, tmp_path, capsys):
    command = ["reproduce", "table2", "--out", str(tmp_path), "--data", images, *SMALL]
    assert main([*command, "--variant", "random"]) == 0
    assert main([*command, "--variant", "vaal", "--seeds", "2"]) == 0
    capsys.readouterr()
    assert main([*command, "--show-only", "--seeds", "2"]) == 0
    text = (tmp_path / "table2" / "table2.md").read_text()
    assert "mean over 1 to 2 seeds" in text
    assert [line.split(" | ")[1] for line in text.splitlines() if line[:4] in ("| ra", "| va")] == [
        "1", "2"
    ]  # fmt: skip


def test_figures_of_whole_runs_leave_the_others_out(tmp_path, capsys):
    command = ["reproduce", "fig5", "--out", str(tmp_path), "--seeds", "2", "--steps", "3"]
    assert main(command) == 0
    before = read(tmp_path / "fig5" / "fig5.csv")
    for dataset in ("circles", "moons"):
        cut_off = tmp_path / "runs" / dataset / "vaal,rounds=1,steps=3" / "seed_1" / "rounds.csv"
        cut_off.write_text("".join(cut_off.read_text().splitlines(keepends=True)[:2]))
    assert main([*command, "--show-only", "--replace"]) == 0  # there are fewer runs now
    assert "2 unfinished runs are left out" in capsys.readouterr().out
    after = read(tmp_path / "fig5" / "fig5.csv")
    left_out = [
        row["strategy"] == "vaal (Ip 5)" and row["seed"] == "1" and "-100" not in row["dataset"]
        for row in before
    ]
    assert after == [row for row, out in zip(before, left_out, strict=True) if not out]
    for path in tmp_path.glob("runs/*/*/*/rounds.csv"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert main([*command, "--show-only"]) == 2
    assert "there is no finished run of 'Test error against" in capsys.readouterr().err


def test_bad_input_is_refused_before_anything_is_run(images, tmp_path, capsys):
    out = tmp_path / "out"
    for arguments, message in (
        (["fig8"], "exhibit must be one of all, fig3"),
        (["table2"], "mnist"),  # and which files it wants where
        (["table2", "--data", images], "are 1100 labels; the pool of npz:"),
        (["fig3", "--data", images], "data cannot replace it"),
        (["fig3", "--seeds", "0"], "seeds must be at least 1"),
        (["fig3", "--variant", "margin"], "are 'random'; 'vaal'; 'vaal (Ip 5)'; got 'margin'\n"),
        (
            ["digits", "--variant", "vaal Ip 5"],
            "got 'vaal Ip 5', did you mean 'vaal (Ip 5)'?\n",
        ),
        (["tabel2"], "got 'tabel2', did you mean table2?\n"),
        (["table2", "--data", images, *SMALL[:-1], "50"], "query_size must be at most pool_size"),
    ):
        assert main(["reproduce", *arguments, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_a_folder_with_other_settings_is_refused_naming_them(images, tmp_path):
    items = planned(["fig9"], images, tmp_path, steps=2)
    run_missing(items[:1], progress=False)
    path = items[0].folder / "config.json"
    path.write_text(path.read_text().replace('"batch_size": 32', '"batch_size": 16'))
    (items[0].folder / ".checksums.json").unlink()  # which says that it was edited
    for _ in range(2):  # a finished run, and one that would go on
        with pytest.raises(ValueError, match="batch_size is 16 there and 32 here"):
            run_missing(items, progress=False)
        (items[0].folder / "rounds.csv").unlink(missing_ok=True)


def test_a_run_on_other_data_is_refused(images, tmp_path, capsys):
    """The file is another one by the second call: old numbers are not shown as its, nor averaged
    with new ones."""
    path = tmp_path / "images.npz"
    content = dict(np.load(images.removeprefix("npz:")))
    np.savez(path, **content)
    command = ["reproduce", "table2", "--variant", "random", "--data", f"npz:{path}", *SMALL]
    command += ["--out", str(tmp_path / "out")]
    assert main(command) == 0
    np.savez(path, **content | {"x": content["x"] + 1})
    capsys.readouterr()
    assert main([*command, "--seeds", "2"]) == 2
    assert "made from other data than those of npz:" in capsys.readouterr().err
    (only,) = (tmp_path / "out").glob("runs/*/*/*")
    assert only.name == "seed_0"


def test_an_accuracy_below_the_paper_s_axis_is_drawn(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "write_figure", lambda figure, path: drawn.append(figure))
    for accuracy, bottom in ((0.12, 9.0), (0.9, 70.0)):
        curves = {"test loss": [2.0, 1.5], "training loss": [1.0, 0.5]}
        curves["test accuracy"] = [accuracy, 0.95]
        panels = {"balanced": {name: np.array(values) for name, values in curves.items()}}
        figures.draw_losses(tmp_path / "fig9.png", panels, np.array([100, 200]), "title")
        (right,) = (axes for axes in drawn.pop().axes if "accuracy" in axes.get_ylabel())
        assert right.get_ylim()[0] == pytest.approx(bottom)


def test_killed_and_started_again_it_goes_on(images, tmp_path):
    """SIGKILL in the second round: the first is kept, and the end is that of an undisturbed one."""
    command = [sys.executable, "-m", "vaal_ext", "reproduce", "fig9", "--data", images, *SMALL]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, "--out", killed], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("round 0/2"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    (kept,) = killed.glob("runs/**/rounds.csv")
    first = kept.read_text()
    subprocess.run([*command, "--out", killed], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, "--out", whole], check=True, stdout=subprocess.DEVNULL)
    assert kept.read_text().startswith(first)
    for path in whole.glob("runs/**/query_*.csv"):
        assert path.read_bytes() == (killed / path.relative_to(whole)).read_bytes()
    assert (killed / "fig9/fig9.csv").read_bytes() == (whole / "fig9/fig9.csv").read_bytes()


def test_two_processes_share_the_runs(images, tmp_path):
    """While another process is at a run, the rest is done and that one is waited for."""
    items = planned(["fig9"], images, tmp_path, steps=2)
    items[0].folder.mkdir(parents=True)
    with locked_elsewhere(items[0].folder) as other:
        child = os.fork()
        if child == 0:
            run_missing(items, progress=False)
            os._exit(0)
        deadline = time.monotonic() + 60
        while not items[1].finished and time.monotonic() < deadline:
            time.sleep(0.1)
        assert items[1].finished
        assert not items[0].finished
        other.kill()
        assert os.waitpid(child, 0)[1] == 0
    assert items[0].finished


def test_table_cells_by_hand():
    """Columns are the paper's; the mean and the paper's number stand side by side."""
    labels = [100, 200, 300, 400]
    groups = {
        "vaal": [run_of([0.5, 0.92, 0.9, 0.96], labels, seed=s) for s in range(3)],
        "margin": [run_of([0.5, 0.8, 0.9, 0.95], labels)],
    }
    cells = table_cells(groups, "mnist")
    assert [(c.variant, c.annotations, c.seeds) for c in cells] == [
        ("vaal", 100, 3), ("vaal", 300, 3), ("margin", 100, 1), ("margin", 300, 1)
    ]  # fmt: skip
    assert [c.mean for c in cells] == pytest.approx([92, 96, 80, 95])
    assert [c.paper for c in cells[:2]] == [91.16, 95.50]
    assert all(math.isnan(c.paper) for c in cells[2:])
    text = markdown_table(cells, "Table", ["a note"])
    assert "| labelled samples (queried) | seeds | 200 (100) | 400 (300) |" in text
    row = "| **92.00 [92.00, 92.00]** (91.16) | **96.00 [96.00, 96.00]** (95.50) |"
    assert f"| vaal | 3 {row}" in text
    assert "| margin | 1 | 80.00 | 95.00 |" in text
    below = table_cells({"vaal": [run_of([0.5, 0.9116], [100, 200])]}, "mnist")
    assert "| vaal | 91.16 (91.16) |" in markdown_table(below, "Table", [])  # equal is not above


def test_runs_that_query_otherwise_have_their_own_columns():
    cells = table_cells({"vaal": [run_of([0.5, 0.6, 0.7], [20, 40, 60])]}, "digits")
    assert [c.annotations for c in cells] == [20, 40]


def test_a_planned_run_is_the_one_that_vaal_ext_run_makes(images, tmp_path):
    """No setting is lost on the way: a plan without overrides is the data set's own run, by the
    paper's search."""
    items = plan_runs([EXHIBITS["digits"]], Overrides(seeds=1), tmp_path)
    configs = {item.label: item.config for item in items}
    for name in ("vaal", "vaal+vat", "badge"):
        usual = RunConfig(dataset="digits", strategy=name).resolved()
        assert configs[name].strategy == usual.strategy
        assert configs[name].regulariser == usual.regulariser
    search = {"method": "finite-difference"}
    assert (
        configs["vaal (Ip 5)"] == RunConfig(dataset="digits", strategy="vaal", **search).resolved()
    )
