"""What a run says of itself: at once, after every round, on a terminal and in a log."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace

import pytest
from killed_runs import SMALL, Killed, small_networks
from terminal import Terminal

from vaal_ext.experiment import each_round, loop
from vaal_ext.experiment.loop import run
from vaal_ext.experiment.status import duration, queries, say, standing_bar, time_left
from vaal_ext.pool import first_batch


@pytest.fixture(autouse=True)
def networks():
    with small_networks():
        yield


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1, "5 s"), (12.4, "10 s"), (57, "55 s"), (58, "1 min"), (2400, "40 min"),
        (5399, "90 min"), (5400, "1.5 h"), (7200, "2 h"), (36_000, "10 h"), (50_000, "14 h"),
    ],
)  # fmt: skip
def test_durations_are_as_coarse_as_an_estimate(seconds, text):
    assert duration(seconds) == text


def test_time_left_comes_from_rounds_with_a_query():
    assert time_left([], 10) == ""  # nothing is known
    assert time_left([60.0], 10) == "at least 10 min left"  # the others query besides
    assert time_left([60.0, 120.0, 240.0], 10) == "about 24 min left"
    assert time_left([60.0, 120.0], 1) == ""  # nothing is left


def test_one_is_no_plural():
    assert (queries(1), queries(2)) == ("1 query", "2 queries")


def test_a_log_is_told_before_the_first_round_and_after_each(monkeypatch, tmp_path, capfd):
    # What the network gets is told once a process, by whichever test comes first: not here.
    monkeypatch.setattr(first_batch, "_tell_input", lambda *_: None)
    before = []
    real = each_round.Experiment.next_round

    def watched(self, state):
        before.append(capfd.readouterr().out)
        return real(self, state)

    monkeypatch.setattr(each_round.Experiment, "next_round", watched)
    run(SMALL, tmp_path / "run")
    assert before[0] == (
        f"{tmp_path / 'run'}: vaal on moons, 2 queries of 5 samples after 6 initial labels, "
        "3 steps a training\n"
    )
    assert before[1].startswith("round 0/2  6 labels")
    assert re.search(r"  at least \d+ (s|min) left\n$", before[1])
    assert re.search(r"  about \d+ (s|min) left\n$", before[2])
    last = capfd.readouterr()
    assert last.out.startswith("round 2/2")
    assert "left" not in last.out
    assert last.err == ""  # no bar is drawn over itself in a file


def test_a_run_taken_up_again_knows_from_its_folder_what_is_left(monkeypatch, tmp_path, capsys):
    config, real = replace(SMALL, rounds=3), loop.RunFolder.commit

    def killed_after_round_1(folder, state, scores):
        real(folder, state, scores)
        if len(state.rounds) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop.RunFolder, "commit", killed_after_round_1)
        with pytest.raises(Killed):
            run(config, tmp_path, progress=False)
    run(config, tmp_path)
    first = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r".*: going on after round 1, about \d+ (s|min) left", first)


def test_a_terminal_has_the_bar_at_once_and_lines_above_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with standing_bar("run 4 of 26, about 40 min left", total=26, done=3, show=True) as bar:
        assert "run 4 of 26, about 40 min left:  12%" in terminal.getvalue()
        assert "| 3/26" in terminal.getvalue()
        say("a line")
        bar.update()
        bar.set_description_str("run 5 of 26")
        assert "a line\n" in terminal.getvalue()
        assert terminal.getvalue().rindex("run 5 of 26: ") > terminal.getvalue().index("a line\n")
    assert terminal.getvalue().endswith("\r")  # it is gone


def test_the_bar_of_a_run_says_which_round_is_on(monkeypatch, tmp_path, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(SMALL, tmp_path)
    for text in ("round 0 of 2:   0%", "round 1 of 2, at least ", "round 2 of 2, about "):
        assert text in terminal.getvalue()
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("show", [True, False])
def test_where_stderr_is_no_terminal_there_is_no_bar(monkeypatch, show):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with standing_bar("run 1 of 2", total=2, done=0, show=show) as bar:
        bar.update()
    assert log.getvalue() == ""
