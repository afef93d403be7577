"""A pool run through a network by the screen of :mod:`vaal_ext.pool.screen`, in one process or in
several."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from vaal_ext.backend import load_backend
from vaal_ext.checks import require_number, warn_caller
from vaal_ext.pool.scores import PoolScores, joined
from vaal_ext.pool.scoring import Part, PoolRun
from vaal_ext.pool.screen import Screen
from vaal_ext.power_iteration import PowerIteration, Roughness
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


@dataclass(frozen=True)
class Curvature:
    """The probe of the first pass: λ of each sample in the place of its LDR, from one forward."""

    backend: str

    def run(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        index: Tensor,
        mask: Tensor | None = None,
    ) -> Roughness:
        """See :meth:`~vaal_ext.power_iteration.PowerIteration.run`; of `index` and `mask` nothing
        depends."""
        with torch.no_grad():
            logits = forward(x.clone())  # a model may begin with an in-place layer
            _, curvature = load_backend(self.backend).fisher_direction(logits)
        return Roughness(logits, curvature, torch.zeros_like(curvature, dtype=torch.bool))


class Screened(NamedTuple):
    """The scores, how many of the samples that were scored are flat, and how many were scored."""

    scores: PoolScores
    flat: int
    scored: int


def require_screen(settings: PowerIteration, above: Any, miss: Any) -> None:
    """TypeError or ValueError where there is no such screen."""
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
    pool: Any,
    sample_index: Any,
    progress: bool,
    above: float,
    miss: float,
    team: Team,
) -> Screened:
    """The scores of a pool in the way that ``run.chosen`` says, in every process of the team.

    In the first pass process r of K reads samples N·r/K to N·(r+1)/K, in every turn every K-th
    sample from r on. The clean logits of a sample that is scored are computed in both: the second
    time their forward is recorded for the gradient, and holding the records of a pool would take as
    much memory as its activations. All else that the first pass gave (pseudo label, entropy,
    margin, mean posterior) is kept.
    """
    index = run.index(pool, sample_index)
    total, settings = len(index), cast(PowerIteration, run.probe)
    start, stop = (total * r // team.size for r in (team.rank, team.rank + 1))
    progress = progress and team.rank == 0

    def first_pass() -> Part:
        clean = Curvature(run.backend)
        (part,) = run.parts(pool, index, [(start, stop)], stop - start, progress, clean)
        return part

    parts: list[Part] = team.gathered(first_pass)
    # Alone, a loader's sampler may leave samples out: then rows are not the pool's positions.
    position = parts[0].position
    scores = parts[0].scores
    if team.size > 1:
        position, scores = np.arange(total), joined((part.scores for part in parts), total)
    screen = Screen(scores.ldr, scores.index, seed=int(settings.seed), above=above, miss=miss)
    flat = 0
    turn = np.zeros(0, dtype=np.int64)

    def mine() -> Generator[np.ndarray, None, None]:
        while True:
            yield position[turn[team.rank :: team.size]]

    with closing(run.parts(pool, index, mine(), None, progress)) as measured:
        for rows in screen.turns():
            turn = np.sort(rows)  # as they lie on a disk
            parts = team.gathered(lambda: next(measured))
            for rank, part in enumerate(parts):
                screen.ldr[turn[rank :: team.size]] = part.scores.ldr
            flat += sum(part.flat for part in parts)
    scored = int(screen.scored.sum())
    if screen.reason and team.rank == 0:
        warn_caller(
            "LDR was computed of all samples: the curvature of the clean posterior does not tell "
            f"where it is large with eps={settings.eps:g} ({screen.reason}). With a smaller eps a "
            "screen leaves samples out"
        )
    if run.chosen is not None and screen.threshold is not None:
        told = f"LDR of {scored} of {scores.num_samples} samples, the others rank below {above:g} %"
        run.chosen = replace(run.chosen, report="; ".join(filter(None, (run.chosen.report, told))))
    return Screened(_result(scores, screen), flat, scored)


def _result(scores: PoolScores, screen: Screen) -> PoolScores:
    """The scores of the first pass with the LDR that the screen found in the place of λ."""
    ldr, failed = screen.ldr, screen.scored & np.isnan(screen.ldr)
    if screen.threshold is not None:
        # Also what was scored in vain: which samples these are hangs on the last bit of λ.
        ranked = ~(np.isnan(scores.ldr) | failed)
        ldr[ranked & ~(ldr >= screen.threshold)] = -np.inf
    changes = {"ldr": ldr}
    if failed.any():  # of x, not of x + r: they are as all that could not be scored
        blank = {"pseudo_label": -1, "entropy": np.nan, "margin": np.nan}
        changes |= {
            name: np.where(failed, value, getattr(scores, name)).astype(getattr(scores, name).dtype)
            for name, value in blank.items()
        }
    return replace(scores, **changes)
