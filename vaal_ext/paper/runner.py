"""Running the runs of a plan that are not finished, and reading what they have come to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vaal_ext.experiment.loop import run
from vaal_ext.experiment.status import say, standing_bar
from vaal_ext.files.claim import FolderInUseError, is_locked
from vaal_ext.paper.estimate import recorded_seconds, time_left
from vaal_ext.paper.plan import Exhibit
from vaal_ext.paper.planned import Overrides, PlannedRun, runs_of
from vaal_ext.report.runs import Run, require_same_data

__all__ = ["results", "run_missing"]

# How often to look whether a run that another process is at has ended.
_POLL_SECONDS = 5.0


def run_missing(planned: Sequence[PlannedRun], *, progress: bool = True) -> None:
    """Run what is not finished, one after the other; a run that was cut off goes on.

    Several processes may do this at once with the same folder: each run is done by one of them,
    and every process waits until all are done.

    Raises:
        ValueError: a folder that holds another run, naming the difference; or a damaged one.
        OSError: a file that cannot be read or written.
    """
    left = [item for item in planned if not item.finished]
    done, pace = len(planned) - len(left), _Pace()
    if progress:
        estimate = time_left(planned)
        rest = f", {estimate} for the rest" if estimate else ""
        say(f"{done} of {len(planned)} runs are finished{rest}")
    waiting, show = False, progress and bool(left)
    with standing_bar(f"run {done + 1}", total=len(planned), done=done, show=show) as bar:
        while left:
            elsewhere = []
            for item in left:
                if not item.finished:
                    if is_locked(item.folder):  # first: run() would read the data before it knows
                        elsewhere.append(item)
                        continue
                    heading = f"run {done + 1} of {len(planned)}"
                    estimate = time_left(planned, pace.ratio) if progress else ""
                    heading += f", {estimate} left" if estimate else ""
                    bar.set_description_str(heading)
                    if progress:
                        say(heading)
                    try:
                        with pace.measured(item):
                            run(item.config.settings, item.folder, progress=progress)
                    except FolderInUseError:
                        elsewhere.append(item)
                        continue
                done += 1
                bar.update()
            if len(elsewhere) == len(left):
                if progress and not waiting:
                    waiting = True
                    say(f"waiting for another process, which is at {elsewhere[0].folder}")
                time.sleep(_POLL_SECONDS)
            left = elsewhere


class _Pace:
    """How much longer the runs of this process take than their folders record: they record neither
    reading the data nor evaluating, and may have been begun on another machine."""

    def __init__(self) -> None:
        self._recorded = self._taken = 0.0

    @property
    def ratio(self) -> float:
        return self._taken / self._recorded if self._recorded else 1.0

    @contextmanager
    def measured(self, item: PlannedRun) -> Iterator[None]:
        before, started = sum(recorded_seconds(item)), time.perf_counter()
        yield
        self._taken += time.perf_counter() - started
        self._recorded += sum(recorded_seconds(item)) - before


def results(exhibit: Exhibit, overrides: Overrides, out: Path) -> dict[str, dict[str, list[Run]]]:
    """The runs of an exhibit that have a finished round: data set -> variant -> one for each seed.

    ValueError where a folder holds another run, or a damaged one, runs were made from different
    data, or there is no run at all.
    """
    groups: dict[str, dict[str, list[Run]]] = {}
    for item in runs_of(exhibit, overrides, out):
        found = item.load()
        if found is not None:
            groups.setdefault(item.dataset, {}).setdefault(item.label, []).append(found)
    if not groups:
        raise ValueError(f"{out} has no run of {exhibit.title!r} with a finished round")
    require_same_data([r for found in groups.values() for runs in found.values() for r in runs])
    return groups
