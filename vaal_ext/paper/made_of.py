"""What an exhibit's files were made of: told in a line, kept beside them, compared with before.

``made_of.json`` lies in the folder of an exhibit: data set -> variant -> "data" (what it was run
on), "steps" (of a training), "pool_size" (null: all of it), "query_size" and "queries" (seed -> how
many are finished).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaal_ext.experiment.status import counted
from vaal_ext.files.atomic import write_atomically
from vaal_ext.files.reading import parse_json
from vaal_ext.report.runs import Run

__all__ = [
    "MadeOf",
    "caption",
    "destination",
    "entry",
    "of_results",
    "seeds_text",
    "write_made_of",
]

MadeOf = dict[str, dict[str, dict[str, Any]]]

_NAME = "made_of.json"


def entry(config: Mapping[str, Any], queries: Mapping[int, int]) -> dict[str, Any]:
    """What ``made_of.json`` says of runs that differ in their seed: `queries` is seed -> number."""
    kind, colon, path = config["dataset"].partition(":")
    return {
        "data": kind + colon + Path(path).name,  # no absolute path: results are handed on
        "steps": config.get("steps"),
        "pool_size": config.get("pool_size"),
        "query_size": config["query_size"],
        "queries": {str(seed): number for seed, number in sorted(queries.items())},
    }


def of_results(results: Mapping[str, Mapping[str, Sequence[Run]]]) -> MadeOf:
    """The same of the runs of an exhibit, data set -> variant -> a run for each seed."""
    return {
        dataset: {
            label: entry(runs[0].config, {r.config["seed"]: len(r.labels) - 1 for r in runs})
            for label, runs in groups.items()
        }
        for dataset, groups in results.items()
    }


def caption(entries: Sequence[Mapping[str, Any]]) -> str:
    """Of what :func:`entry` gave, for a picture: "5 seeds, 10 queries of 100 from the whole pool,
    500 steps a training"; "1 to 5 seeds" where they differ."""
    queries = [number for one in entries for number in one["queries"].values()]
    steps = {one["steps"] for one in entries}
    pools = sorted({one["pool_size"] or math.inf for one in entries})
    pool = "the whole pool" if pools == [math.inf] else f"{_several(pools)} samples of the pool"
    return (
        f"{seeds_text(len(one['queries']) for one in entries)}, "
        f"{_several(queries)} {'query' if max(queries) == 1 else 'queries'} of "
        f"{_several(one['query_size'] for one in entries)} from {pool}, "
        f"{_several(steps)} {'step' if steps == {1} else 'steps'} a training"
    )


def seeds_text(numbers: Iterable[int]) -> str:
    """ "3 seeds"; "1 to 3 seeds" where some variants have been run with more than others."""
    numbers = sorted(set(numbers))
    fewest = f"{numbers[0]} to " if len(numbers) > 1 else ""
    return fewest + counted(numbers[-1], "seed")


def _several(numbers: Iterable[float]) -> str:
    ends = sorted(set(numbers))
    texts = ["all" if number == math.inf else f"{number:,}" for number in (ends[0], ends[-1])]
    return texts[0] if len(ends) == 1 else " to ".join(texts)


def destination(folder: Path, new: MadeOf, *, replace: bool = False) -> tuple[Path, str | None]:
    """Where to write what is made of `new`: into `folder`, or beside it where that holds more.

    Beside it is `folder`-smaller; where that holds more too, `folder`-smaller-2, and so on.

    Returns:
        The folder, and where it is not `folder` a line that says why.
    """
    why = None if replace else _more_there(folder, new)
    if why is None:
        return folder, None
    beside = folder.with_name(f"{folder.name}-smaller")
    for number in itertools.count(2):
        if _more_there(beside, new) is None:
            break
        beside = folder.with_name(f"{folder.name}-smaller-{number}")
    return beside, (
        f"{folder} is left as it is: {why}. This goes to {beside}; with --replace it takes the "
        "place of the other"
    )


def _more_there(folder: Path, new: MadeOf) -> str | None:
    """What the pictures in a folder are made of and `new` is not; None where there is nothing."""
    if not any(folder.glob("*.png")):
        return None
    try:
        return _lacking(new, parse_json((folder / _NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"it does not say what it was made of ({_NAME})"


def _lacking(new: MadeOf, old: MadeOf) -> str | None:
    """What `old` is made of and `new` is not; None where there is nothing."""
    for dataset, variants in old.items():
        for label, was in variants.items():
            now = new.get(dataset, {}).get(label)
            if now is None:
                return f"it has {label!r} of {dataset} too"
            if now["data"] != was["data"]:
                return f"it was made from {was['data']}, not {now['data']}"
            if now["steps"] < was["steps"]:
                return f"it has {was['steps']} steps a training, not {now['steps']}"
            if (now["pool_size"] or math.inf) < (was["pool_size"] or math.inf):
                whole = was["pool_size"] or "the whole pool"
                return f"its queries chose from {whole}, not {now['pool_size']} samples"
            for seed, number in was["queries"].items():
                if now["queries"].get(seed, -1) < number:
                    return (
                        f"it has {counted(number, 'query', 'queries')} of {label!r} with seed "
                        f"{seed}, not {now['queries'].get(seed, 'any')}"
                    )
    return None


def write_made_of(folder: Path, made: MadeOf) -> None:
    """``made_of.json`` in the folder. To be written first: a call that is cut off goes on there."""
    with write_atomically(folder / _NAME, "w") as file:
        json.dump(made, file, indent=1)
        file.write("\n")
