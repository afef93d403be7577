"""The settings and versions of the runs that a report compares, as a section of its page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from vaal_ext.report.page import Section
from vaal_ext.report.runs import Run

__all__ = ["described_settings"]


def described_settings(groups: dict[str, list[Run]]) -> Section:
    """The runs, the settings that all of them share and those that differ, and the versions."""
    section = Section("Settings and versions")
    runs = [run for group in groups.values() for run in group]
    lines = [["strategy", "seed", "queries", "labels", "accuracy [%]", "training [s]", "query [s]"]]
    lines[0].append("folder")
    for name, group in groups.items():
        for run in group:
            done = f"{len(run.labels) - 1} of {run.config['rounds']}"
            lines.append(
                [
                    name, str(run.config["seed"]), done, str(run.labels[-1]),
                    f"{100 * run.accuracy[-1]:.2f}", f"{run.train_seconds.sum():.1f}",
                    f"{run.query_seconds.sum():.1f}", str(run.folder),
                ]
            )  # fmt: skip
    section.table("The runs, as far as they have come", lines)
    names = dict.fromkeys(name for run in runs for name in run.config if name != "seed")
    shared, different = [], []
    for name in names:
        if len(_values(run.config.get(name) for run in runs)) == 1:
            shared.append([name, _text(runs[0].config.get(name))])
        else:
            each = (_values(run.config.get(name) for run in group) for group in groups.values())
            different.append([name, *map("; ".join, each)])
    if different:
        section.table("Settings that differ", [["setting", *groups], *different])
    section.table("Settings of all runs", [["setting", "value"], *shared], prose=True, folded=True)
    versions = dict.fromkeys(name for run in runs for name in run.made_with)
    found = [[n, "; ".join(_values(run.made_with.get(n) for run in runs))] for n in versions]
    if found:
        section.table("Versions that began the runs", [["software", "version"], *found], prose=True)
    else:
        section.missing("The folders do not tell which versions made these runs.")
    return section


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 90.0 is 90
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value)


def _values(values: Iterable[Any]) -> list[str]:
    """The different ones, in their order."""
    return list(dict.fromkeys(map(_text, values)))
