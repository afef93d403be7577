"""What `reproduce` would do, told without running or writing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vaal_ext.experiment.status import counted, queries
from vaal_ext.paper.estimate import time_left
from vaal_ext.paper.made_of import MadeOf, destination, entry
from vaal_ext.paper.plan import Exhibit
from vaal_ext.paper.planned import Overrides, PlannedRun, check_data, list_runs, runs_of

__all__ = ["dry_run"]


def dry_run(
    chosen: Mapping[str, Exhibit], overrides: Overrides, out: Path, *, replace: bool
) -> Iterator[str]:
    """Lines: for each exhibit its variants and where its files would go; the data that are missing;
    how many runs there are, how many of them are finished, and how long the rest takes.

    TypeError, ValueError: a bad setting, or a folder that holds another run.
    """
    for name, exhibit in chosen.items():
        items = list(runs_of(exhibit, overrides, out))
        folder, why = destination(out / name, _made_of(items), replace=replace)
        yield f"{name}, {exhibit.title}: {_counts(items)}; files go to {folder}"
        if why is not None:
            yield f"  {why}"
        for dataset, variants in _made_of(items).items():
            for label in variants:
                mine = [i for i in items if (i.dataset, i.label) == (dataset, label)]
                config = mine[0].config
                budget, steps = config.budget, config.training.steps
                yield (
                    f"  {dataset}, {label!r}: {_counts(mine)}; {queries(budget.rounds)} of "
                    f"{budget.query_size}, {counted(steps, 'step')} a training"
                )
    planned = list_runs(list(chosen.values()), overrides, out)
    for dataset in dict.fromkeys(item.config.settings.dataset for item in planned):
        try:
            check_data([item for item in planned if item.config.settings.dataset == dataset])
        except (OSError, ValueError, ImportError) as error:
            yield f"data of {dataset}: {error}"
        else:
            yield f"data of {dataset}: there"
    left = time_left(planned)
    took = f"; {left} for the rest, as long as finished rounds took" if left else ""
    together = "" if len(chosen) == 1 else "all of these, which share what they have in common: "
    yield f"{together}{_counts(planned)}{took}; nothing was run or written"


def _counts(items: Sequence[PlannedRun]) -> str:
    """ "5 runs, 3 finished, 1 begun"."""
    found = [item.load() for item in items]
    finished = sum(run is not None and run.finished for run in found)
    begun = sum(run is not None for run in found) - finished
    text = f"{counted(len(items), 'run')}, {finished} finished"
    return f"{text}, {begun} begun" if begun else text


def _made_of(items: Sequence[PlannedRun]) -> MadeOf:
    """What the files will be made of when every run is finished."""
    seeds: dict[tuple[str, str], dict[int, int]] = {}
    configs = {}
    for item in items:
        config = vars(item.config.settings)
        seeds.setdefault((item.dataset, item.label), {})[config["seed"]] = config["rounds"]
        configs[item.dataset, item.label] = config
    made: MadeOf = {}
    for (dataset, label), numbers in seeds.items():
        made.setdefault(dataset, {})[label] = entry(configs[dataset, label], numbers)
    return made
