"""What the steps of labelling say of answers and trainings, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vaal_ext.labelling.answers import NOT_TAKEN, OUTCOMES, Outcome
from vaal_ext.labelling.config import SKIP
from vaal_ext.labelling.project import Project
from vaal_ext.labelling.tables import Asked, Training

__all__ = ["FEWEST", "accuracy_interval", "described", "outcome_table", "standing"]

_EXAMPLES = 3  # shown of each outcome

# Below this no accuracy is told: even ten right answers out of ten leave 31 % of errors possible
# (the 95 % interval of Clopper and Pearson).
FEWEST = 10


def outcome_table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for each outcome there is, with its first images."""
    for name, meaning in OUTCOMES.items():
        rows = [row for row in outcomes if row.outcome == name]
        if rows:
            yield f"  {name:<14}{len(rows):>6}  {meaning}"
            if name in (*NOT_TAKEN, "changed"):
                for row in rows[:_EXAMPLES]:
                    change = f"{row.before} -> " if row.before else ""
                    meant = f" (did you mean {row.suggestion}?)" if row.suggestion else ""
                    said = ", ".join(row.labels)
                    yield f"{'':24}{row.image or '(no name)'}: {change}{said}{meant}"


def standing(project: Project, asked: Sequence[Asked]) -> str:
    """How far the last query and the project are."""
    answers, labels = project.answers(), project.labels()
    number = asked[-1].query if asked else 0
    current = [row.image for row in asked if row.query == number]
    done = sum(image in answers for image in current)
    counts = Counter(labels.values())
    each = ", ".join(f"{name} {counts[name]}" for name in project.config.classes)
    skipped = sum(answer == SKIP for answer in answers.values())
    return (
        f"query {number}: {done} of {len(current)} answered; in all {len(labels)} labels ({each}), "
        f"{skipped} skipped"
    )


def described(row: Training, project: Project) -> str:
    """A training and how good its network is, as far as the labels can tell."""
    where = "in the test folder" if project.config.test is not None else "held out"
    result = "nothing to evaluate it on"
    if row.evaluated:
        right = round(float(row.accuracy) * row.evaluated)
        result = f"{right} of {row.evaluated} labels {where} are right"
        if row.evaluated < FEWEST:
            result += f", too few to tell its accuracy ({FEWEST} or more would)"
        else:
            low, high = accuracy_interval(row)
            result += (
                f": accuracy {100 * float(row.accuracy):.1f}% (95% interval {100 * low:.1f} to "
                f"{100 * high:.1f}%), loss {float(row.loss):.3f}"
            )
    return f"training {row.training}: {row.labels} labels, {row.seconds:.1f} s; {result}"


def accuracy_interval(row: Training) -> tuple[float, float]:
    """Clopper's and Pearson's 95 % interval of a training's accuracy, in 0..1; it was evaluated.

    It holds the true one at least so often.
    """
    from scipy import stats  # most commands need none of it

    right = round(float(row.accuracy) * row.evaluated)
    interval = stats.binomtest(right, row.evaluated).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)
