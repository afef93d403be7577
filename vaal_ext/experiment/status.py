"""What a run shows while it works: a bar at the terminal's foot, lines above it, the time left."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tqdm import tqdm

from vaal_ext.experiment.config import ResolvedConfig
from vaal_ext.experiment.state import Round

__all__ = [
    "beginning",
    "counted",
    "duration",
    "now",
    "queries",
    "round_line",
    "say",
    "standing_bar",
    "time_left",
]


def standing_bar(desc: str, *, total: int, done: int, show: bool) -> tqdm:
    """A bar at the foot of a terminal, there from the start until it is closed.

    Bars that come and go meanwhile (of a training, say) are drawn below it. Where stderr is no
    terminal it shows nothing; a log then has only the lines of :func:`say`.

    Args:
        desc: what is going on; ``set_description_str`` changes it.
        total, done: the number of steps, and how many of them are finished.
        show: False makes a bar that shows nothing.
    """
    return tqdm(
        desc=desc,
        total=total,
        initial=done,
        leave=False,
        disable=not (show and sys.stderr.isatty()),
        # Without tqdm's own estimate, which knows nothing of steps of other calls.
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}",
    )


def say(text: str) -> None:
    """A line on stdout at once, above the bars where a terminal has some."""
    if sys.stderr.isatty():
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    else:
        print(text, flush=True)


def queries(number: int) -> str:
    """ "1 query", "10 queries"."""
    return counted(number, "query", "queries")


def counted(n: int, what: str, several: str | None = None) -> str:
    """1, "seed" -> "1 seed"; 2, "seed" -> "2 seeds"; 2, "query", "queries" -> "2 queries"."""
    return f"{n} {what if n == 1 else several or what + 's'}"


def duration(seconds: float) -> str:
    """So many seconds, rounded to what an estimate is good for: "5 s", "4 min", "2.5 h"."""
    if seconds < 57.5:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{round(2 * hours) / 2:g} h" if hours < 10 else f"{round(hours)} h"


def time_left(seconds: Sequence[float], rounds: int) -> str:
    """ "about 4 min left" in a run of `rounds` queries whose finished rounds took `seconds`.

    Round 0 has no query: where it is the only one finished, the others take at least as long. ""
    where no round is finished, or none is left.
    """
    left = rounds + 1 - len(seconds)
    if not seconds or not left:
        return ""
    if len(seconds) == 1:
        return f"at least {duration(left * seconds[0])} left"
    return f"about {duration(left * sum(seconds[1:]) / (len(seconds) - 1))} left"


def beginning(config: ResolvedConfig, done: int, left: str) -> str:
    """A line on what a run will do, `done` of its rounds being finished."""
    budget, settings = config.budget, config.settings
    if done > budget.rounds:
        return f"finished before, all {budget.rounds} rounds"
    if done:
        return f"going on after round {done - 1}, {left}"
    return (
        f"{settings.strategy} on {settings.dataset}, {queries(budget.rounds)} of "
        f"{budget.query_size} samples after {counted(budget.initial, 'initial label')}, "
        f"{counted(config.training.steps, 'step')} a training"
    )


def now(done: int, left: str, last: int) -> str:
    """The text of the bar of a run with `last` queries: the current round, and the time left where
    that is known."""
    number = min(done, last)  # after the last one the bar is there for a moment more
    return f"round {number} of {last}" + (left and f", {left}")


def round_line(row: Round, last: int, left: str) -> str:
    """The results of one round of a run with `last` queries, and the time `left` if it is known."""
    return (
        f"round {row.round:>{len(str(last))}}/{last}  {row.labels} labels  "
        f"test accuracy {100 * row.test_accuracy:.2f}%  loss {row.test_loss:.4f}  "
        f"training {row.train_seconds:.1f} s  scoring {row.score_seconds:.1f} s  "
        f"selecting {row.select_seconds:.2f} s" + (left and f"  {left}")
    )
