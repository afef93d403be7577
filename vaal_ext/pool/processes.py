"""A pool scored by the processes of a torch.distributed group, each of them a part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from vaal_ext.pool.fingerprint import differences, identity
from vaal_ext.pool.plan import Plan
from vaal_ext.pool.run import Part, Piece, PoolRun
from vaal_ext.pool.scores import joined
from vaal_ext.pool.screened import Screened, Team, screened

__all__ = ["RankFailedError", "group_size", "score_together"]

T = TypeVar("T")

# DistributedDataParallel sends rank 0's buffers before a forward, not after the last one.
_AFTER_TRAINING = (
    ". After training with DistributedDataParallel the running statistics of batch norm differ: "
    "first run: for buffer in model.buffers(): torch.distributed.broadcast(buffer, 0)"
)


class RankFailedError(ConnectionError):
    """Another process of the group has failed, or has died."""


def group_size(group: Any) -> int:
    """How many processes score together: 1 where torch.distributed is not initialised.

    Raises:
        ValueError: this process is not in the group.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    size = dist.get_world_size(group)
    if size < 1:
        raise ValueError("group must be a process group that this process is in, it is not")
    return size


@dataclass(frozen=True)
class _Group(Team):
    group: Any
    rank: int
    size: int

    def gathered(self, work: Callable[[], T]) -> list[T]:
        return _gathered(work, self.group)


def score_together(
    run: PoolRun,
    pool: Any,
    sample_index: Any,
    progress: bool,
    group: Any,
    screen: tuple[float, float] | None,
) -> tuple[Screened, Plan]:
    """The scores of the whole pool, and how it was run, in every process of `group`.

    `screen` is (above, miss) of :meth:`vaal_ext.LDRScorer.score`, or None.
    Process r of K reads and scores samples N·r/K to N·(r+1)/K and gets the other scores from the
    other processes. The first process settles for all what is "auto", and alone shows a bar.

    Raises:
        ValueError: the processes came with pools, networks or settings that differ.
        RankFailedError: another process failed (what it said is told), or died.
    """
    rank, size = dist.get_rank(group), group_size(group)

    def planned() -> tuple[dict[str, Any], Any]:
        plan = run.plan(pool, run.index(pool, sample_index)) if rank == 0 else None
        above, miss = screen or (None, None)
        return identity(run, pool, sample_index) | {"above": above, "miss": miss}, plan

    plans = _gathered(planned, group)
    first, plan = plans[0]
    for other, (theirs, _) in enumerate(plans):
        if theirs != first:
            # Told alike by all processes; "there" and "here" are the two ranks.
            found = "; ".join(differences(first, theirs))
            alike = first | {"network": ""} == theirs | {"network": ""}
            raise ValueError(
                f"the processes of a group must score one pool with one network: {found} "
                f"(there: rank 0, here: rank {other})" + (_AFTER_TRAINING if alike else "")
            )
    index = run.index(pool, sample_index)
    if screen is not None:
        team = _Group(group, rank, size)
        return screened(run, plan, pool, index, progress, *screen, team), plan
    total = len(index)

    def work() -> Part:
        mine = range(total * rank // size, total * (rank + 1) // size)
        pieces = [Piece(mine, look=rank == 0)]  # there alone
        (part,) = run.parts(plan, pool, index, pieces, len(mine), progress and rank == 0)
        return part

    parts = _gathered(work, group)
    scores = joined((part.scores for part in parts), total)
    return Screened(scores, sum(part.failed for part in parts), total), plan


def _gathered(work: Callable[[], T], group: Any) -> list[T]:
    """What `work` gives in every process of the group, by rank.

    A process that fails takes part all the same, so that the others do not wait for it in vain.
    """
    value, failure = None, None
    try:
        value = work()
    except Exception as error:  # whatever it is, the others must hear of it
        failure = error
    told = None if failure is None else f"{type(failure).__name__}: {failure}"
    everyone: list[Any] = [None] * group_size(group)
    try:
        dist.all_gather_object(everyone, (value, told), group=group)
    except RuntimeError as error:  # of the back end: a connection closed, or nothing for too long
        if failure is None:
            reason = str(error).partition("\n")[0]
            raise RankFailedError(
                f"a process of the group has died or no longer answers ({reason})"
            ) from error
    if failure is not None:
        raise failure
    for rank, (_, text) in enumerate(everyone):
        if text is not None:
            raise RankFailedError(f"rank {rank} of the group failed: {text}")
    return [value for value, _ in everyone]
