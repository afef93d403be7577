"""How long the runs of a plan still take, from the rounds that lie in their folders."""

from __future__ import annotations

from collections.abc import Sequence

from vaal_ext.experiment.status import duration
from vaal_ext.paper.planned import PlannedRun

__all__ = ["recorded_seconds", "time_left"]


def recorded_seconds(item: PlannedRun) -> list[float]:
    """What every finished round of a run took, training, scoring and selecting.

    ValueError: see :meth:`~vaal_ext.paper.planned.PlannedRun.load`.
    """
    found = item.load()
    return [] if found is None else (found.train_seconds + found.query_seconds).tolist()


def time_left(planned: Sequence[PlannedRun], pace: float = 1.0) -> str:
    """ "about 40 min" for what is not finished; "" where nothing of it is known, or left.

    A round is taken to last as those of the same variant did on average, or else as those of the
    other variants of the data set (round 0, which has no query, is no guide); "at least 40 min"
    where a data set has none. `pace` is how much longer than recorded this process takes.
    """
    took: dict[str, dict[str, list[float]]] = {}
    left: list[tuple[str, str, int]] = []
    for item in planned:
        seconds = recorded_seconds(item)
        took.setdefault(item.dataset, {}).setdefault(item.label, []).extend(seconds[1:])
        rounds = item.config.budget.rounds + 1 - len(seconds)
        if rounds:
            left.append((item.dataset, item.label, rounds))
    known, unknown = 0.0, False
    for dataset, label, rounds in left:
        like = took[dataset][label] or [s for variant in took[dataset].values() for s in variant]
        if like:
            known += pace * rounds * sum(like) / len(like)
        else:
            unknown = True
    if not known:
        return ""
    return f"{'at least' if unknown else 'about'} {duration(known)}"
