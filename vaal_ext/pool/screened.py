"""A pool run through a network by the screen of :mod:`vaal_ext.pool.screen`, in one process or in
several."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from vaal_ext.checks import require_number, warn_caller
from vaal_ext.perturbation.ldr import LDR
from vaal_ext.perturbation.measure import Posterior
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool.names import pool_names
from vaal_ext.pool.plan import Plan
from vaal_ext.pool.run import Piece, PoolRun
from vaal_ext.pool.scores import PoolScores, joined
from vaal_ext.pool.screen import Screen
from vaal_ext.selection import require_percentile

__all__ = ["Alone", "Screened", "Team", "require_screen", "screened"]


class Team:
    """The processes that score one pool: `rank` of `size`, and what they tell each other."""

    rank: int
    size: int

    def gathered(self, work: Callable[[], Any]) -> list[Any]:
        """What `work` gives in every process, by rank; all of them call this together.

        Raises:
            Exception: that of `work` here, or one that says that it failed in another process.
        """
        raise NotImplementedError


class Alone(Team):
    """A process of its own."""

    rank, size = 0, 1

    def gathered(self, work: Callable[[], Any]) -> list[Any]:
        return [work()]


class Screened(NamedTuple):
    """The scores, how many of the scored samples are flat, how many were scored, and a line about
    the screen for the user."""

    scores: PoolScores
    flat: int
    scored: int
    report: str = ""


def require_screen(settings: SearchSettings, above: Any, miss: Any) -> None:
    """TypeError or ValueError where these settings allow no screen."""
    require_percentile("above", above)
    require_number("miss", miss)
    if not 0 < miss < 1:
        raise ValueError(f"miss must be above 0 and below 1, got {miss}")
    if settings.smoothing:
        raise ValueError(
            f"above must be None with smoothing, got {above} and {settings.smoothing}: the screen "
            "goes by the posterior as it is"
        )


def screened(
    run: PoolRun,
    plan: Plan,
    pool: Any,
    index: np.ndarray | range,
    progress: bool,
    above: float,
    miss: float,
    team: Team,
) -> Screened:
    """The scores of a pool, the same in every process of the team.

    `index` is int64 [N], the identity of each sample. Process r of K takes every K-th sample of
    every turn, from r on. The clean logits of a sample that is scored and not in the audit are
    computed twice, because only the second forward is recorded for the gradient: the records of a
    whole pool would take as much memory as all its activations. What the first forward gave
    (pseudo label, entropy, margin, mean posterior) is kept.
    """
    total, measure = len(index), cast(LDR, run.measure)
    progress = progress and team.rank == 0
    search, seed = measure.search, int(measure.seed)
    screen = Screen(np.asarray(index), seed=seed, above=above, miss=miss, settings=search)
    first: list[tuple[np.ndarray, PoolScores]] = []
    flat = 0
    turn = np.zeros(0, dtype=np.int64)

    def mine(look: bool) -> Generator[Piece, None, None]:
        while True:
            yield Piece(turn[team.rank :: team.size], look)
            look = False

    over_pool = partial(run.parts, plan, pool, index, curvature=True)
    searched = over_pool(mine(team.rank == 0), None, progress)
    clean = over_pool(mine(False), None, progress, Posterior())
    # Both borrow the network. The one that begins second is closed first, so that the first gives
    # it back as it came.
    with closing(searched), closing(clean):
        for what, rows in screen.turns():
            turn = np.sort(rows)  # in the order in which they lie on a disk
            measured = clean if what == "curvature" else searched
            parts = team.gathered(lambda: next(measured))  # noqa: B023 (called in this turn)
            for rank, part in enumerate(parts):
                here = turn[rank :: team.size]
                screen.curvature[here] = part.curvature
                if what == "ldr":
                    screen.ldr[here] = part.values
                if len(first) < 2 * team.size:  # the audit's turn, then that of all others
                    first.append((here, part.scores))
            if what == "ldr":
                flat += sum(part.failed for part in parts)
    scores = _in_order(first, total, pool_names(pool, 0, total))
    scored = int(screen.scored.sum())
    if screen.reason and team.rank == 0:
        warn_caller(
            "LDR was computed of all samples: the curvature of the clean posterior tells too "
            f"little about where it is large with eps={search.eps:g} ({screen.reason})"
        )
    told = ""
    if screen.threshold is not None:
        told = f"LDR of {scored} of {scores.num_samples} samples, the others rank below {above:g} %"
    return Screened(_result(scores, screen), flat, scored, told)


def _in_order(
    parts: list[tuple[np.ndarray, PoolScores]], size: int, names: np.ndarray | None
) -> PoolScores:
    """The scores of `size` samples from parts, each with the places of its samples, and names."""
    place = np.argsort(np.concatenate([positions for positions, _ in parts]))
    scores = joined((scores for _, scores in parts), size)
    columns = ("index", "ldr", "pseudo_label", "entropy", "margin")
    ordered = {name: getattr(scores, name)[place] for name in columns}
    return replace(scores, **ordered, name=names)


def _result(scores: PoolScores, screen: Screen) -> PoolScores:
    """The scores of the first two turns with the LDR that the screen found in the place of λ."""
    ldr, failed = screen.ldr, screen.scored & np.isnan(screen.ldr)
    if screen.threshold is not None:
        # Also those scored below the threshold: which ones these are depends on the last bit of λ.
        there = ~(np.isnan(screen.curvature) & np.isnan(ldr))
        ranked = there & ~failed
        ldr[ranked & ~(ldr >= screen.threshold)] = -np.inf
    changes = {"ldr": ldr}
    if failed.any():  # their logits were not finite at x + r: they count as not scored
        blank = {"pseudo_label": -1, "entropy": np.nan, "margin": np.nan}
        changes |= {
            name: np.where(failed, value, getattr(scores, name)).astype(getattr(scores, name).dtype)
            for name, value in blank.items()
        }
    return replace(scores, **changes)
