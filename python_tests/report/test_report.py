"""The report: curves and tables against numbers made by hand, pictures, and bad folders."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import add_scores, make_run, run_of

from vaal_ext.report import write
from vaal_ext.report.comparison import compare
from vaal_ext.report.curves import accuracy_table, learning_curves, write_tables
from vaal_ext.report.runs import group_runs, load_run
from vaal_ext.report.write import write_report

PNG = b"\x89PNG\r\n\x1a\n"
HEADER = (
    b"labels,test_accuracy,test_loss,val_accuracy,train_loss,"
    b"train_seconds,score_seconds,select_seconds\n"
)


def test_runs_on_different_data_are_not_averaged() -> None:
    runs = [run_of([0.5, 0.7], [20, 30], seed=seed) for seed in (0, 1)]
    other = replace(runs[1], data_sha256="other")
    with pytest.raises(ValueError, match="run0 and run1 were made from different data, both of"):
        group_runs([runs[0], other])
    drawn = [replace(run, config=run.config | {"dataset": "moons"}) for run in (runs[0], other)]
    assert len(group_runs(drawn)) == 1  # every seed has points of its own
    again = replace(drawn[0], data_sha256="third", config=drawn[0].config | {"strategy": "vaal"})
    with pytest.raises(ValueError, match="different data"):
        group_runs([*drawn, again])


def test_curve_mean_band_and_area() -> None:
    runs = [run_of([0.5, 0.7, 0.9], [20, 30, 50]), run_of([0.6, 0.9, 0.9], [20, 30, 50], seed=1)]
    (curve,) = learning_curves(group_runs(runs))
    assert curve.name == "random"
    np.testing.assert_array_equal(curve.labels, [20, 30, 50])
    np.testing.assert_allclose(curve.mean, [0.55, 0.8, 0.9])
    std = [0.1 / math.sqrt(2), 0.2 / math.sqrt(2), 0.0]
    np.testing.assert_allclose(curve.std, std, atol=1e-15)
    # Two runs: resampled, each comes twice with p = 1/4.
    np.testing.assert_allclose(curve.low, [0.5, 0.7, 0.9])
    np.testing.assert_allclose(curve.high, [0.6, 0.9, 0.9])
    # Trapezia of width 10 and 20, over the width 30.
    areas = [(0.6 * 10 + 0.8 * 20) / 30, (0.75 * 10 + 0.9 * 20) / 30]
    assert curve.area == pytest.approx((np.mean(areas), np.std(areas, ddof=1)))


def test_unfinished_run_counts_where_it_has_come() -> None:
    runs = [run_of([0.5, 0.7, 0.9], [20, 30, 40]), run_of([0.6, 0.9], [20, 30], seed=1)]
    (curve,) = learning_curves(group_runs(runs))
    np.testing.assert_array_equal(curve.runs, [2, 2, 1])
    assert curve.mean[2] == 0.9
    assert math.isnan(curve.std[2])
    assert math.isnan(curve.low[2])
    # The area compares what both have: 20 to 30 labels.
    assert curve.area[0] == pytest.approx((0.6 + 0.75) / 2)
    assert [run.finished for run in runs] == [True, False]


def test_no_shared_budget_has_no_area() -> None:
    groups = group_runs(
        [run_of([0.5, 0.7], [20, 30], eps=1.0), run_of([0.5, 0.8], [25, 35], eps=2.0)]
    )
    curves = learning_curves(groups)
    assert all(math.isnan(curve.area[0]) for curve in curves)
    assert accuracy_table(curves).count(" -") >= 2


def test_groups_are_named_by_what_differs() -> None:
    runs = [
        run_of([0.5], [20], strategy="vaal", eps=0.1),
        run_of([0.5], [20], strategy="vaal", eps=0.1, seed=1, data_root="elsewhere", rounds=5),
        run_of([0.5], [20], strategy="vaal", eps=2.0),
        run_of([0.5], [20], strategy="random", eps=2.0),
    ]
    groups = group_runs(runs)
    assert {name: len(group) for name, group in groups.items()} == {
        "vaal (eps=0.1)": 2,
        "vaal (eps=2.0)": 1,
        "random": 1,
    }


def test_table_ranks_by_area_and_picks_columns(tmp_path: Path) -> None:
    labels = list(range(20, 220, 10))
    groups = group_runs(
        [
            run_of([0.5] * 20, labels),
            run_of([0.7] * 20, labels, seed=1),
            run_of([0.9] * 20, labels, strategy="vaal"),
        ]
    )
    curves = learning_curves(groups)
    header, first, second = accuracy_table(curves, columns=4).splitlines()
    assert first.split() == ["vaal", "1", *["90.00"] * 5]
    assert second.split()[:5] == ["random", "2", "60.00", "±", "14.14"]
    assert len(header) == len(first) == len(second)
    assert "20 labels" in header
    assert "210 labels" in header

    write_tables(curves, tmp_path)
    with (tmp_path / "accuracy.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 40
    assert rows[0]["strategy"] == "random"
    assert float(rows[0]["mean"]) == pytest.approx(0.6)
    assert rows[-1]["std"] == ""
    assert rows[-1]["seeds"] == "1"
    with (tmp_path / "area.csv").open(newline="") as handle:
        areas = {row["strategy"]: row for row in csv.DictReader(handle)}
    assert float(areas["vaal"]["area_mean"]) == pytest.approx(0.9)
    assert areas["vaal"]["area_std"] == ""


def test_report_of_images(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    runs = [
        make_run(tmp_path / "r0", [0.5, 0.6, 0.7]),
        make_run(tmp_path / "r1", [0.4, 0.6], seed=1),
        make_run(tmp_path / "v0", [0.5, 0.7, 0.8], strategy="vaal", guesses=True),
    ]
    add_scores(runs[2], np.arange(40, 1000))
    out = tmp_path / "deep" / "report"
    text = "\n".join(write_report(runs, out))
    assert f"{runs[1]} is unfinished: 1 of 2 queries" in text
    names = {path.name for path in out.iterdir()}
    pictures = {"learning_curves.png", "ldr_vaal.png", "queried_vaal.png", "queried_random.png"}
    pictures.add("win_matrix.png")
    assert names == pictures | {
        "accuracy.csv",
        "area.csv",
        "statistics.csv",
        "statistics.md",
        "report.html",
    }
    for name in pictures:
        assert name in text
        assert (out / name).read_bytes().startswith(PNG)
    before = (out / "learning_curves.png").read_bytes()
    list(write_report(runs, out))
    assert (out / "learning_curves.png").read_bytes() == before


def test_the_matrix_of_wins_says_what_was_compared(tmp_path: Path, monkeypatch) -> None:
    titles = []
    monkeypatch.setattr(
        write, "draw_win_matrix", lambda path, names, wins, title: titles.append(title)
    )
    groups = {
        name: [run_of([0.5, 0.6, 0.7], [20, 30, 40], seed=seed) for seed in range(3)]
        for name in ("random", "vaal")
    }
    list(write.write_comparison(compare(groups), "digits", tmp_path))
    assert titles == ["digits: which strategy is more accurate\n3 seeds, 20 to 40 labels"]


def test_report_of_points_has_no_contact_sheet(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r0", [0.5, 0.6, 0.7], dataset="moons")
    text = "\n".join(write_report([run], tmp_path / "out"))
    assert "no contact sheet for random: its samples are not images" in text


def test_report_without_its_data_still_has_curves(tmp_path: Path) -> None:
    missing = tmp_path / "gone.npz"
    run = make_run(tmp_path / "r0", [0.5, 0.6, 0.7], dataset=f"npz:{missing}")
    text = "\n".join(write_report([run], tmp_path / "out"))
    assert "no contact sheet for random" in text
    assert str(missing) in text
    assert (tmp_path / "out" / "learning_curves.png").exists()


def test_a_setting_of_a_later_version_splits_no_group(tmp_path: Path) -> None:
    """What a folder lacks had its default then; and 90 is 90.0."""
    runs = [
        make_run(tmp_path / "r0", [0.5, 0.6]),
        make_run(tmp_path / "r1", [0.5, 0.6], seed=1, twins=None, sign="paper", percentile=90),
        make_run(tmp_path / "r2", [0.5, 0.6], seed=2, percentile=80),
    ]
    groups = group_runs([load_run(folder) for folder in runs])
    seeds = {name: [run.config["seed"] for run in group] for name, group in groups.items()}
    assert seeds == {"random (percentile=90.0)": [0, 1], "random (percentile=80)": [2]}


def test_images_of_other_data_are_not_shown(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((90, 1, 8, 8)), np.arange(90) % 3
    np.savez(tmp_path / "a.npz", x=x, y=y)
    run = make_run(tmp_path / "r0", [0.5, 0.6], dataset=f"npz:{tmp_path / 'a.npz'}")
    np.savez(tmp_path / "a.npz", x=x + 1e-3, y=y)
    text = "\n".join(write_report([run], tmp_path / "out"))
    assert (
        f"no contact sheet for random: the data in npz:{tmp_path / 'a.npz'} are not those" in text
    )


def test_queries_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r0", [0.5, 0.6, 0.7])
    for number in (998, 1000):
        (folder / f"query_{number}.csv").write_text("index,pseudo_label\n1,\n")
    assert list(load_run(folder).queries()) == [0, 1, 2, 998, 1000]


def test_report_of_a_run_with_one_round(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r0", [0.5])
    text = "\n".join(write_report([run], tmp_path / "out"))
    assert "0 of 2 queries" in text
    assert "nothing is queried yet" in text


def test_every_ldr_equal_is_drawn(tmp_path: Path) -> None:
    from vaal_ext.report.figures import draw_ldr_histogram

    path = tmp_path / "ldr.png"
    draw_ldr_histogram(path, np.zeros(10, np.float32), np.zeros(10, bool), 90.0, "all zero")
    assert path.read_bytes().startswith(PNG)


def test_more_curves_than_colours(tmp_path: Path) -> None:
    from vaal_ext.report.curve_figure import draw_learning_curves

    runs = [run_of([0.1 * i, 0.9], [20, 30], strategy=f"s{i}") for i in range(9)]
    draw_learning_curves(tmp_path / "c.png", learning_curves(group_runs(runs)), "digits")
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)


def damage(folder: Path, name: str, content: bytes | None) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", b'{"config": {"dataset": ', "not the configuration of a run"),
        ("config.json", b"[1, 2]", "not the configuration of a run"),
        ("config.json", b'{"config": {"dataset": 3}}', "not the configuration of a run"),
        ("rounds.csv", None, "has no rounds.csv"),
        ("rounds.csv", HEADER, "holds no finished round"),
        ("rounds.csv", b"labels,score_seconds,select_seconds\n", "lacks the column test_accuracy"),
        ("rounds.csv", b"labels,test_accuracy\n", "lacks the column val_accuracy, test_loss"),
        ("rounds.csv", HEADER + b"20,0.5,1,0.5,1,0\n", "damaged: a line has too few"),
        (
            "rounds.csv",
            HEADER + b"20,nan,1,0.5,1,0,0,0\n",
            "damaged: labels must grow and accuracies",
        ),
        ("rounds.csv", HEADER + b"x,0.5,1,0.5,1,0,0,0\n", "damaged: invalid literal"),
        ("rounds.csv", HEADER + b"20,0.5,1,0.5,1,0,0,nan\n", "damaged: seconds must be finite"),
        ("rounds.csv", HEADER + b"20,0.5,1,0.5,1,0,-1,0\n", "damaged: seconds must be finite"),
        ("rounds.csv", HEADER + b"20,0.5,1,0.5,1,inf,0,0\n", "damaged: seconds must be finite"),
        ("rounds.csv", b"\xff\xfe\x00", "damaged, 'utf-8' codec can't decode"),
    ],
)
def test_damaged_run(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    run = make_run(tmp_path / "r0", [0.5, 0.6, 0.7])
    damage(run, name, content)
    with pytest.raises(ValueError, match=message):
        load_run(run)
    with pytest.raises(ValueError, match=message):
        list(write_report([run], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_damaged_query(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r0", [0.5, 0.6, 0.7])
    damage(run, "query_001.csv", b"index,pseudo_label\nnine,\n")
    with pytest.raises(ValueError, match=r"query_001\.csv is not a query"):
        load_run(run).queries()


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", [0.5])
    other = make_run(tmp_path / "b", [0.5], dataset="moons")
    again = make_run(tmp_path / "c", [0.5])
    with pytest.raises(ValueError, match=r"different datasets: .*a is 'digits', .*b is 'moons'"):
        list(write_report([first, other], tmp_path / "out"))
    with pytest.raises(ValueError, match="same settings and the same seed"):
        list(write_report([first, again], tmp_path / "out"))
    with pytest.raises(ValueError, match="there is no such folder"):
        list(write_report([tmp_path / "nowhere"], tmp_path / "out"))
    assert not (tmp_path / "out").exists()
