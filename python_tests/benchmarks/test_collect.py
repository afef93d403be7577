"""Runs made a few at a time come together: collect.py keeps the rounds of all of them."""

import collect
import pytest
from csv_files import rows

from vaal_ext.paper.plan import Exhibit
from vaal_ext.paper.planned import Overrides, plan_runs
from vaal_ext.paper.runner import run_missing

SMALL = Exhibit(
    "table", "Small", ("moons",), {"random": {"strategy": "random"}}, seeds=1, rounds=1,
    one_query=True,
)  # fmt: skip


@pytest.mark.slow
def test_runs_of_two_calls_are_drawn_together(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "PAPER", tmp_path / "committed")
    monkeypatch.setitem(collect.EXHIBITS, "small", SMALL)
    overrides = Overrides(steps=2, seeds=2)
    for item in plan_runs([SMALL], overrides, tmp_path / "all"):
        run_missing([item], progress=False)
        # As another machine would have it: one run a folder.
        seed = item.config.settings.seed
        other = tmp_path / f"seed {seed}" / item.folder.relative_to(tmp_path / "all")
        other.parent.mkdir(parents=True)
        item.folder.rename(other)
        list(collect.collect("small", overrides, tmp_path / f"seed {seed}"))
    folder = tmp_path / "committed" / "small"
    rounds = rows(folder / "statistics_moons" / "runs.csv")
    assert [(row["seed"], row["labels"]) for row in rounds] == [
        ("0", "10"), ("0", "20"), ("1", "10"), ("1", "20")
    ]  # fmt: skip
    assert [cell["seeds"] for cell in rows(folder / "small.csv")] == ["2"]
    assert not (folder / "statistics_moons" / "report.html").exists()
    # Drawn anew from what is committed the table is the same.
    before = (folder / "small.md").read_text()
    list(collect.collect("small", overrides, None))
    assert (folder / "small.md").read_text() == before


def test_an_exhibit_without_runs_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "PAPER", tmp_path)
    with pytest.raises(SystemExit, match="no finished run of digits"):
        list(collect.collect("digits", Overrides(seeds=1), tmp_path))
