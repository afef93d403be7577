"""`reproduce --dry-run` says what would be done, and does nothing; how long runs will take."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from command_line import files

from vaal_ext.cli.app import main
from vaal_ext.experiment.loop import run
from vaal_ext.paper import runner
from vaal_ext.paper.estimate import recorded_seconds, time_left
from vaal_ext.paper.plan import EXHIBITS
from vaal_ext.paper.planned import Overrides, PlannedRun, list_runs
from vaal_ext.paper.runner import run_missing

SMALL = {"seeds": 2, "rounds": 2, "steps": 1, "variants": ("random", "vaal")}
OPTIONS = [
    "--seeds", "2", "--rounds", "2", "--steps", "1", "--variant", "random", "--variant",
    "vaal",
]  # fmt: skip


def planned(out: Path) -> list[PlannedRun]:
    return list_runs([EXHIBITS["digits"]], Overrides(**SMALL), out)


def took(item: PlannedRun, *seconds: float) -> None:
    """Gives the finished rounds of a run, the first of them, these seconds."""
    path = item.folder / "rounds.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))[: len(seconds)]
    for row, value in zip(rows, seconds, strict=True):
        row |= {"train_seconds": value - 1, "score_seconds": 0.75, "select_seconds": 0.25}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (item.folder / ".checksums.json").unlink(missing_ok=True)  # the change is meant


def test_nothing_is_run_or_written(tmp_path, capsys):
    out = tmp_path / "paper"
    assert main(["reproduce", "digits", "table2", "--out", str(out), *OPTIONS, "--dry-run"]) == 0
    assert not out.exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"digits, Digits: 4 runs, 0 finished; files go to {out / 'digits'}"
    assert lines[2] == ("  digits, 'vaal': 2 runs, 0 finished; 2 queries of 10, 1 step a training")
    assert "data of digits: there" in lines
    (mnist,) = (line for line in lines if line.startswith("data of mnist"))
    assert "mnist needs a data root" in mnist
    assert lines[-1].endswith("8 runs, 0 finished; nothing was run or written")  # no time is known


def test_what_is_finished_tells_how_long_the_rest_takes(tmp_path, capsys):
    items = planned(tmp_path)
    run(items[0].config.settings, items[0].folder, progress=False)
    took(items[0], 1000, 60, 120)
    before = files(tmp_path)
    assert main(["reproduce", "digits", "--out", str(tmp_path), *OPTIONS, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  digits, 'random': 2 runs, 1 finished; ")
    # Three runs of three rounds of 90 s, as those with a query were on average.
    assert lines[-1].startswith("4 runs, 1 finished; about 14 min for the rest, ")
    assert files(tmp_path) == before


def test_the_estimate(tmp_path):
    items = planned(tmp_path)
    first, rising = (next(i for i in items if i.label == name) for name in SMALL["variants"])
    assert time_left(items) == ""
    for item in (first, rising):
        run(item.config.settings, item.folder, progress=False)
    took(first, 10, 600, 600)
    took(rising, 10, 1200)  # cut off: round 2 is to be done
    # random: 3 rounds of 600 s; rising: 1 + 3 rounds of 1200 s: 6600 s.
    assert time_left(items) == "about 2 h"
    assert time_left(items, pace=2.0) == "about 3.5 h"
    took(rising, 10)  # nothing is known of it but the other variant's rounds: 3 + 2 + 3 of 600 s
    assert time_left(items) == "about 80 min"
    others = list_runs([EXHIBITS["toys"]], Overrides(seeds=1, steps=1), tmp_path)
    assert time_left([*items, *others]) == "at least 80 min"
    assert time_left([first]) == ""  # nothing is left


def test_recorded_seconds_are_those_that_were_proved(tmp_path, monkeypatch):
    item = planned(tmp_path)[0]
    run(item.config.settings, item.folder, progress=False)
    took(item, 10, 60, 120)
    assert recorded_seconds(item) == [10, 60, 120]
    found = item.load()
    monkeypatch.setattr(PlannedRun, "load", lambda item: found)
    (item.folder / "rounds.csv").write_text("nothing of it is read again")
    assert recorded_seconds(item) == [10, 60, 120]


def test_a_bar_and_a_line_say_which_run_is_on(monkeypatch, tmp_path, capsys):
    done = []
    monkeypatch.setattr(
        runner, "run", lambda config, folder, progress: done.append((folder, capsys.readouterr()))
    )
    monkeypatch.setattr(PlannedRun, "finished", property(lambda item: len(done) > 4))
    items = planned(tmp_path)
    estimates = iter(["", "", "about 40 min", "about 30 min", "about 20 min"])
    monkeypatch.setattr(runner, "time_left", lambda planned, pace=1.0: next(estimates))
    run_missing(items)
    assert [folder for folder, _ in done] == [item.folder for item in items]
    assert [text.out for _, text in done] == [
        "0 of 4 runs are finished\nrun 1 of 4\n",
        "run 2 of 4, about 40 min left\n",
        "run 3 of 4, about 30 min left\n",
        "run 4 of 4, about 20 min left\n",
    ]
    assert {text.err for _, text in done} == {""}


@pytest.mark.parametrize("replace", [True, False])
def test_it_says_where_the_files_would_go(replace, tmp_path, capsys):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "digits.png").touch()
    command = ["reproduce", "digits", "--out", str(tmp_path), *OPTIONS, "--dry-run"]
    assert main([*command, *(["--replace"] if replace else [])]) == 0
    where = tmp_path / ("digits" if replace else "digits-smaller")
    assert capsys.readouterr().out.splitlines()[0].endswith(f"; files go to {where}")
