"""Runs that are killed at a moment, and the comparison with one that was not."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from csv_files import rows

from vaal_ext.experiment import each_round
from vaal_ext.experiment.config import RunConfig
from vaal_ext.experiment.seeds import seeded
from vaal_ext.models import MLP
from vaal_ext.strategies import Strategy, Vaal

SMALL = RunConfig(
    "moons", "vaal", rounds=2, initial=6, query_size=5, steps=3, pool_size=64, num_iters=1,
    device="cpu", backend="reference",
)  # fmt: skip


class Killed(BaseException):
    """What no part of the program catches by mistake."""


def small_model(dataset, *, seed):
    with seeded(seed, torch.device("cpu")):
        return MLP(2, 2, hidden=16)


@contextmanager
def small_networks():
    """For the toy sets, inside the block: with their real network many runs would take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(each_round, "model_for", small_model)
        yield


def without_seconds(path: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows(path)]


def assert_same(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if name not in ("rounds.csv", "state.pt", ".checksums.json"):  # which hold seconds
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert without_seconds(one / "rounds.csv") == without_seconds(other / "rounds.csv")
    a, b = (torch.load(path / "state.pt", weights_only=True) for path in (one, other))
    assert torch.equal(a["labelled"], b["labelled"])
    twins = [state.get("twins", {}) for state in (a, b)]
    assert twins[0].keys() == twins[1].keys()
    assert all(torch.equal(twins[0][key], twins[1][key]) for key in twins[0])
    assert a["weights"].keys() == b["weights"].keys()
    assert all(torch.equal(a["weights"][key], b["weights"][key]) for key in a["weights"])


def kill_at(monkeypatch, moment: int, strategy: type[Strategy] = Vaal) -> list[str]:
    """Raise Killed before or after the moment-th stage of a run; gives the names of the moments."""
    names: list[str] = []

    def watch(owner, name):
        real = getattr(owner, name)

        def watched(*args, **kwargs):
            for when in ("before", "after"):
                if when == "after":
                    result = real(*args, **kwargs)
                names.append(f"{when} {name}")
                if len(names) == moment:
                    raise Killed
            return result

        monkeypatch.setattr(owner, name, watched)

    watch(strategy, "score")
    watch(strategy, "pick")
    watch(each_round, "train")
    watch(each_round, "evaluate")
    watch(os, "replace")
    return names
