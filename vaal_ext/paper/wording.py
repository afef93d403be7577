"""What an exhibit says of itself in words: its caption, its title's end, the notes of a table."""

from __future__ import annotations

from pathlib import Path

from vaal_ext.paper import made_of
from vaal_ext.report.runs import Run

__all__ = ["caption", "first_runs", "instead", "notes", "seeds_shown"]


def instead(groups: dict[str, list[Run]], dataset: str) -> str:
    """ ", on folder:images" where the runs had other data (``--data``) in the place of the set."""
    kind, _, path = next(iter(groups.values()))[0].config["dataset"].partition(":")
    return f", on {kind}:{Path(path).name}" if path and kind != dataset else ""


def seeds_shown(groups: dict[str, list[Run]]) -> str:
    """The seeds of the first runs of the groups, as text."""
    return "seed " + ", ".join(
        map(str, sorted({runs[0].config["seed"] for runs in groups.values()}))
    )


def caption(*shown: dict[str, list[Run]]) -> str:
    """The caption that says what a picture was made of: of one data set or of several."""
    made = made_of.of_results({str(number): groups for number, groups in enumerate(shown)})
    return made_of.caption([entry for variants in made.values() for entry in variants.values()])


def first_runs(groups: dict[str, list[Run]]) -> dict[str, list[Run]]:
    """The first run of each group."""
    return {label: runs[:1] for label, runs in groups.items()}


def notes(groups: dict[str, list[Run]], dataset: str, printed: bool) -> list[str]:
    """How a table was made, for its reader; `printed`: whether the paper prints this table too."""
    config = next(iter(groups.values()))[0].config
    pool = config["pool_size"]
    scored = "the whole pool" if pool is None else f"{pool:,} samples of the pool, drawn anew"
    finished = {len(run.labels) - 1 for runs in groups.values() for run in runs}
    number = " to ".join(map(str, sorted({min(finished), max(finished)})))
    made = "query" if finished == {1} else "queries"
    initial = config["initial"]
    paper = (
        f'; the paper\'s "# annotations" are the queried ones alone, without the initial {initial}'
        if printed
        else ""
    )
    seeds = made_of.seeds_text(len(runs) for runs in groups.values())
    itself = f", on {dataset} itself" if instead(groups, dataset) else ""
    beside = f"; in parentheses the paper's{itself}, bold where ours is above" if printed else ""
    return [
        f"Test accuracy in percent, mean over {seeds} "
        f"[95% bootstrap interval]{beside}. Data: "
        f"{config['dataset'].partition(':')[0]}; {initial} initial labels, {number} {made} of "
        f"{config['query_size']} from {scored}; {_steps(groups)}.",
        "A column says how many labelled samples the network was trained on, as the picture's axis "
        f"does, and in parentheses how many of them were queried{paper}.",
    ]


def _steps(groups: dict[str, list[Run]]) -> str:
    """ "500 steps a training", or how many which variants took."""
    taken: dict[int, list[str]] = {}
    for label, runs in groups.items():
        taken.setdefault(runs[0].config["steps"], []).append(label)
    if len(taken) == 1:
        return f"{next(iter(taken))} steps a training"
    # The names of variants may hold commas.
    each = (f"{steps:,} ({'; '.join(labels)})" for steps, labels in sorted(taken.items()))
    return "steps a training: " + ", ".join(each)
