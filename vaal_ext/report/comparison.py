"""Strategies compared seed by seed: what their runs have in common, and every number of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vaal_ext.experiment.status import counted
from vaal_ext.report.runs import Run
from vaal_ext.report.statistics import (
    area_under_curve,
    holm,
    mean_and_interval,
    paired_difference,
    signed_rank_p,
    win_matrix,
)

__all__ = ["Comparison", "Measurement", "compare"]

# The strategies that others are held against.
BASELINES = ("random", "entropy")


class Measurement(NamedTuple):
    """A row of statistics.csv. NaN and None are empty cells.

    ``measure`` is "accuracy" (0..1, at ``labels`` labels), "area" (the mean accuracy over the
    budget, 0..1), "wins" (the share of seeds and rounds in which it beats ``against``) or
    "query_seconds" (a run's median over its queries). With ``against``, accuracy and area are
    differences to that strategy. ``value`` is the mean over ``n`` seeds (for wins: the share of
    ``n`` seeds and rounds), ``low`` and ``high`` its 95% bootstrap interval, ``p`` Wilcoxon's,
    ``p_holm`` the same after Holm's correction over the strategies held against the same one.
    """

    strategy: str
    measure: str
    labels: int | None
    against: str | None
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    p: float = math.nan
    p_holm: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """What all strategies have in common, and how they compare on it.

    Attributes:
        names: the K strategies; baselines: those of them that the others are held against.
        seeds, labels: int64 [S] and [L], which the runs of all strategies have.
        wins: float64 [K, K], see :func:`vaal_ext.report.statistics.win_matrix`, over the rounds
            that a query led to; None where there is no such round, or one strategy alone.
        measurements: every number.
        subset: a line that says what was compared, and how much was left out.
    """

    names: tuple[str, ...]
    baselines: tuple[str, ...]
    seeds: np.ndarray
    labels: np.ndarray
    wins: np.ndarray | None
    measurements: tuple[Measurement, ...]
    subset: str


def compare(groups: dict[str, list[Run]]) -> Comparison:
    """Compare groups of runs (as :func:`vaal_ext.report.runs.group_runs` gives them) seed by seed.

    Seeds and numbers of labels that not all groups have are left out. There may be none left:
    then there are no measurements.
    """
    names = tuple(groups)
    baselines = tuple(n for n in names if groups[n][0].config["strategy"] in BASELINES)
    if len(names) == 1:
        baselines = ()
    by_seed = [{run.config["seed"]: run for run in runs} for runs in groups.values()]
    seeds = sorted(set.intersection(*(set(runs) for runs in by_seed)))
    kept = [[runs[seed] for runs in by_seed] for seed in seeds]  # [S][K]
    shared = [set(run.labels.tolist()) for runs in kept for run in runs]
    labels = np.array(sorted(set.intersection(*shared)) if shared else [], dtype=np.int64)
    wins, measurements = None, list[Measurement]()
    if len(labels):
        accuracy = np.array([[_at(run, labels, run.accuracy) for run in runs] for runs in kept])
        measurements += _accuracies(names, baselines, labels, accuracy)
        # No strategy has chosen anything before the first query.
        queried = labels > max(run.labels[0] for runs in kept for run in runs)
        if queried.any():
            seconds = [
                [np.median(_at(run, labels[queried], run.query_seconds)) for run in runs]
                for runs in kept
            ]
            measurements += _measure(names, "query_seconds", None, None, np.array(seconds))
            wins = win_matrix(accuracy[:, :, queried])
            n = len(seeds) * int(np.count_nonzero(queried))
            measurements += [
                Measurement(names[i], "wins", None, names[j], float(wins[i, j]), n=n)
                for i, j in itertools.permutations(range(len(names)), 2)
            ]
    return Comparison(
        names,
        baselines,
        np.array(seeds, dtype=np.int64),
        labels,
        wins if len(names) > 1 else None,
        tuple(measurements),
        _subset_line(by_seed, seeds, labels),
    )


def _at(run: Run, labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Those of a run's values, one for each of its rounds, that it had at these labels."""
    return values[np.isin(run.labels, labels)]


def _subset_line(by_seed: Sequence[dict[int, Run]], seeds: list[int], labels: np.ndarray) -> str:
    all_seeds = set().union(*by_seed)
    all_labels = {n for runs in by_seed for run in runs.values() for n in run.labels.tolist()}
    if not seeds:
        return "no statistics: there is no seed that all strategies have"
    if not len(labels):
        return "no statistics: there is no number of labels that all runs have"
    text = f"statistics over {counted(len(seeds), 'seed')} and {labels[0]} to {labels[-1]} labels"
    left_out = len(all_seeds) - len(seeds), len(all_labels) - len(labels)
    if any(left_out):
        text += (
            f", which all strategies have (left out: {counted(left_out[0], 'seed')}, "
            f"{counted(left_out[1], 'number')} of labels)"
        )
    return text


def _accuracies(
    names: Sequence[str], baselines: Sequence[str], labels: np.ndarray, accuracy: np.ndarray
) -> Iterator[Measurement]:
    """Accuracy at each number of labels and the area, themselves and against each baseline."""
    table: list[tuple[str, int | None, np.ndarray]]
    table = [("accuracy", int(n), accuracy[:, :, i]) for i, n in enumerate(labels)]
    if len(labels) > 1:
        table.append(("area", None, area_under_curve(labels, accuracy)))
    for measure, budget, values in table:
        yield from _measure(names, measure, budget, None, values)
    for against in baselines:
        others = [name for name in names if name != against]
        base = names.index(against)
        for measure, budget, values in table:
            rivals = np.delete(values, base, axis=1)
            base_values = np.broadcast_to(values[:, base, None], rivals.shape)
            difference = paired_difference(rivals, base_values)
            yield from _measure(others, measure, budget, against, difference)


def _measure(
    names: Sequence[str], measure: str, labels: int | None, against: str | None, values: np.ndarray
) -> Iterator[Measurement]:
    """A row for each column of `values`, float [S, len(names)]; a difference is tested."""
    columns = [column.tolist() for column in mean_and_interval(values)]
    p = np.full(len(names), math.nan)
    if against is not None:
        p = np.array([signed_rank_p(column) for column in values.T])
    rows = zip(names, *columns, p.tolist(), holm(p).tolist(), strict=True)
    for name, mean, low, high, raw, adjusted in rows:
        yield Measurement(
            name, measure, labels, against, mean, low, high, len(values), raw, adjusted
        )
