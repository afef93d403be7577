"""Runs, projects and shards that were begun while finite differences were the default go on so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import vaal_ext
from vaal_ext.experiment import each_round
from vaal_ext.experiment.config import RunConfig
from vaal_ext.experiment.loop import run
from vaal_ext.files.checksums import write_recorded
from vaal_ext.labelling.config import ProjectConfig

SHORT = {"dataset": "moons", "steps": 2, "initial": 4, "query_size": 2, "rounds": 2}
STEPS = {"method": "finite-difference"}


def as_of_then(folder: Path) -> None:
    """The run's config.json as versions wrote it that knew no vat_method."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    del content["config"]["vat_method"]
    write_recorded(path, json.dumps(content).encode())


def interrupted_after_one_query(
    config: RunConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = []
    whole = each_round.Experiment.next_round

    def next_round(self, before):
        rounds.append(before)
        if len(rounds) == 3:
            raise KeyboardInterrupt
        return whole(self, before)

    with monkeypatch.context() as patch:
        patch.setattr(each_round.Experiment, "next_round", next_round)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder, progress=False)


def without_seconds(folder: Path) -> list[str]:
    return [line.rsplit(",", 3)[0] for line in (folder / "rounds.csv").read_text().splitlines()]


def test_direct_unless_told_otherwise() -> None:
    config = RunConfig(**SHORT, strategy="vaal+vat").resolved().settings
    assert (config.method, config.xi, config.num_iters) == ("direct", None, 0)
    assert (config.vat_method, config.vat_xi, config.vat_num_iters) == ("direct", None, 0)
    config = RunConfig(**SHORT, strategy="vaal", **STEPS).resolved().settings
    assert (config.xi, config.num_iters) == (0.002, 5)


@pytest.mark.parametrize("strategy", ["vaal", "random", "vaal+vat"])
def test_a_run_of_then_goes_on_with_its_search(
    tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of then, which names no method, gives what that version would have given."""
    of_then = dict(STEPS)
    if strategy.endswith("+vat"):
        of_then["vat_method"] = "finite-difference"
    given = SHORT | {"strategy": strategy}
    run(RunConfig(**given | of_then), tmp_path / "whole", progress=False)
    interrupted_after_one_query(RunConfig(**given | of_then), tmp_path / "a", monkeypatch)
    assert len(without_seconds(tmp_path / "a")) == 3
    as_of_then(tmp_path / "a")
    run(RunConfig(**given), tmp_path / "a", progress=False)
    assert without_seconds(tmp_path / "a") == without_seconds(tmp_path / "whole")
    last = [(tmp_path / name / "query_002.csv").read_bytes() for name in ("a", "whole")]
    assert last[0] == last[1]


def test_a_step_that_was_given_then_is_enough(tmp_path: Path) -> None:
    run(RunConfig(**SHORT, strategy="vaal", xi=0.05, **STEPS), tmp_path / "a", progress=False)
    as_of_then(tmp_path / "a")
    run(RunConfig(**SHORT, strategy="vaal", xi=0.05), tmp_path / "a", progress=False)
    with pytest.raises(ValueError, match=r"xi is 0.05 there and 0.06 here"):
        run(RunConfig(**SHORT, strategy="vaal", xi=0.06), tmp_path / "a", progress=False)


def test_another_method_is_refused_by_name(tmp_path: Path) -> None:
    run(RunConfig(**SHORT, strategy="vaal", **STEPS), tmp_path / "a", progress=False)
    as_of_then(tmp_path / "a")
    with pytest.raises(ValueError, match="method is 'finite-difference' there and 'direct' here"):
        run(RunConfig(**SHORT, strategy="vaal", method="direct"), tmp_path / "a", progress=False)


def test_a_step_without_its_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'finite-difference' makes one"):
        run(RunConfig(**SHORT, strategy="vaal", xi=0.01), tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()


def test_a_project_of_then_keeps_its_search() -> None:
    new = {"images": "photos", "classes": ["a", "b"], "strategy": "vaal+vat"}
    of_then = ProjectConfig.from_settings(
        new | STEPS | {"vat_method": "finite-difference", "num_iters": 5}
    ).settings()
    del of_then["vat_method"]
    taken_up = ProjectConfig.from_settings(of_then)
    assert (taken_up.run.method, taken_up.run.num_iters) == ("finite-difference", 5)
    assert taken_up.run.resolved().regulariser.search.method == "finite-difference"
    begun = ProjectConfig.from_settings(new).run
    assert (begun.method, begun.resolved().regulariser.search.method) == ("direct", "direct")


def test_weights_of_a_project_of_then_are_still_good() -> None:
    """What they are known by has nothing in it that then had not."""
    new = {"images": "photos", "classes": ["a", "b"], "strategy": "vaal"}
    assert "vat_method" not in ProjectConfig.from_settings(new).training_settings()


def test_shards_say_which_search_they_were_begun_with(tmp_path: Path) -> None:
    model, pool = nn.Linear(4, 3), torch.randn(20, 4)
    steps = {**STEPS, "xi": 0.01, "eps": 0.1}
    vaal_ext.LDRScorer(model, **steps).score_shards(pool, tmp_path, progress=False)
    told = r"method is 'finite-difference' there and 'direct' here"
    with pytest.raises(ValueError, match=told):
        vaal_ext.LDRScorer(model, eps=0.1).score_shards(pool, tmp_path, progress=False)
    vaal_ext.LDRScorer(model, **steps).score_shards(pool, tmp_path, progress=False)
