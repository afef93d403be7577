"""The three steps of a round, each of which may be repeated: query, label, train.

A step reads the project's tables, does its work and commits it by replacing one table. Called
again it finds its work done and says so.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn
from torch.utils.data import DataLoader, Subset

from vaal_ext.atomic import write_atomically, write_tensors
from vaal_ext.labelling.answers import NOT_TAKEN, OUTCOMES, Outcome, judge, read_answers
from vaal_ext.labelling.config import SKIP
from vaal_ext.labelling.handout import hand_out
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.learner import Learner, fingerprint, parts
from vaal_ext.labelling.project import Asked, Given, Project, Training
from vaal_ext.pool.scores import PoolScores, score_text
from vaal_ext.reading import load_torch
from vaal_ext.selection import percentile_rank
from vaal_ext.strategies import QueryContext, Random
from vaal_ext.streams import Stream, stream_seed

__all__ = ["label", "query", "train"]

_EXAMPLES = 3  # shown of each outcome
_SCORE_BATCH = 256


def query(
    project: Project, network: nn.Module | None, *, workers: int = 0, progress: bool = True
) -> Iterator[str]:
    """Ask for the next images; yields what happened, in lines.

    The first query is random: nothing is known yet. A further one is made once the last has an
    answer and the network has been trained on all labels; until then the last one is handed out
    again. Images without an answer go back to the pool, those answered "skip" do not.

    Args:
        project: is locked meanwhile.
        network: the user's own, fresh; None for the project's.
        workers: processes that decode the images.
        progress: whether to show bars.

    Raises:
        ValueError: a damaged project, a network that does not fit, an image of another size.
        OSError: an image that cannot be read, a file that cannot be written.
    """
    with project.locked():
        images = _images(project)
        asked, answers = project.asked(), project.answers()
        number = asked[-1].query if asked else 0
        current = [row.image for row in asked if row.query == number]
        waiting = _waiting_for(project, current, answers, images) if asked else None
        if waiting is None:
            position = {name: i for i, name in enumerate(images.names)}
            pool = np.array([position[name] for name in images.names if name not in answers], int)
            if len(pool) == 0:
                yield f"all {len(images)} images have an answer: there is nothing left to ask"
                return
            number += 1
            rows, how = _choose(project, network, images, pool, number, workers, progress)
            project.write_asked([*asked, *rows])
            current = [row.image for row in rows]
            yield f"query {number}: {len(current)} of {len(pool)} images, {how}"
        else:
            done = sum(image in answers for image in current)
            yield f"query {number} as before: {done} of its {len(current)} images have an answer"
        yield hand_out(project, number, current, images)
        yield waiting or _next(project, "label", str(project.path / f"query_{number}.csv"))


def label(project: Project, path: Path) -> Iterator[str]:
    """Take the answers of a file into the project; yields a table of what became of them.

    For what can become of an answer see :data:`~vaal_ext.labelling.answers.OUTCOMES`. Of one image
    the last answer that was taken counts; those before stay in ``labels.csv``. What is refused
    stands in ``not_taken.csv``, with the reason, until this is called again.

    Raises:
        ValueError: the file is neither a CSV of answers nor Label Studio's export; nothing is
            taken then.
        OSError: it cannot be read, or the project cannot be written.
    """
    answers = read_answers(path)
    with project.locked():
        before, asked, given = project.answers(), project.asked(), project.given()
        known = {*_images(project).names, *before, *(row.image for row in asked)}
        outcomes = judge(answers, before, project.config.classes, known)
        refused = [
            (row.image, label, row.outcome)
            for row in outcomes
            if row.outcome in NOT_TAKEN
            for label in row.labels or ("",)
        ]
        taken = [
            Given(row.image, row.labels[0], row.before or "", path.name)
            for row in outcomes
            if row.outcome in ("new", "skipped", "changed")
        ]
        if taken:
            project.write_given([*given, *taken])
        # After the answers: `path` may be this very table, mended.
        project.write_table("not_taken.csv", ("image", "label", "reason"), refused)
        yield f"{path}: answers to {len(outcomes)} images"
        yield from _table(outcomes)
        if refused:
            yield f"{project.path / 'not_taken.csv'}: mend the label there and give it again"
        yield _standing(project, asked)
        yield _next(project, "train")


def train(project: Project, network: nn.Module | None, *, progress: bool = True) -> Iterator[str]:
    """Train a network on all labels and evaluate it; yields what came of it, in lines.

    It is evaluated on the test folder, or on the labels that are held out of the training: an
    image is held out for good, or never. Where neither labels nor settings have changed since the
    last training, nothing is done.

    Raises:
        ValueError: no labels to train on, a damaged project, a network or images that do not fit.
        OSError: an image that cannot be read, a file that cannot be written.
    """
    with project.locked():
        images, labels, trainings = _images(project), project.labels(), project.trainings()
        there = set(images.names)
        gone = [image for image in labels if image not in there]
        if gone:
            yield f"{len(gone)} labelled images are gone and left out ({gone[0]}, ...)"
        labels = {image: name for image, name in labels.items() if image in there}
        inputs = fingerprint(project.config, labels)
        if _is_trained(project, trainings, inputs):
            yield f"training {trainings[-1].training} was on these labels: nothing to do"
        else:
            if trainings and trainings[-1].inputs_sha256 == inputs:
                trainings.pop()  # its weights are lost: the same network once more
            learner = Learner(project.config, images, network)
            number = trainings[-1].training + 1 if trainings else 1
            model, row = learner.train(labels, number, progress=progress)
            asked = project.asked()
            row = replace(row, query=asked[-1].query if asked else 0, inputs_sha256=inputs)
            weights = {k: v.cpu() for k, v in model.state_dict().items()}
            write_tensors(project.weights(number), weights)
            if project.config.model is None:
                with write_atomically(project.path / "network.py", "w") as file:
                    file.write(learner.factory())
            trainings.append(row)
            project.write_trainings(trainings)
        row = trainings[-1]
        for old in project.path.glob("weights_*.pt"):
            if old != project.weights(row.training):
                old.unlink()
        yield _described(row, project)
        yield f"{project.weights(row.training)}: its weights, for vaal-ext score"
        yield _next(project, "query")


def _images(project: Project) -> ImageFiles:
    return ImageFiles(Path(project.config.images), project.config.image_size)


def _is_trained(project: Project, trainings: Sequence[Training], inputs: str) -> bool:
    if not trainings or trainings[-1].inputs_sha256 != inputs:
        return False
    weights = project.weights(trainings[-1].training)
    try:
        load_torch(weights)
    except FileNotFoundError:
        return False
    except ValueError as error:
        warnings.warn(
            f"{weights} is damaged, {error}: vaal-ext train makes it again",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _waiting_for(
    project: Project, current: Sequence[str], answers: dict[str, str], images: ImageFiles
) -> str | None:
    """What must come before a new query; None where it can be made."""
    if not any(image in answers for image in current):
        return _next(project, "label", "FILE")
    there = set(images.names)
    labels = {image: name for image, name in project.labels().items() if image in there}
    if not parts(project.config, labels)[0]:  # all answers so far were "skip", or are held out
        answered = all(image in answers for image in current)
        return None if answered else _next(project, "label", "FILE")
    if _is_trained(project, project.trainings(), fingerprint(project.config, labels)):
        return None
    return _next(project, "train")


def _choose(
    project: Project,
    network: nn.Module | None,
    images: ImageFiles,
    pool: np.ndarray,
    number: int,
    workers: int,
    progress: bool,
) -> tuple[list[Asked], str]:
    """The rows of query `number`, chosen from the positions `pool` int64 [N], and how."""
    config = project.config
    run = config.run.resolved()
    limit = run.pool_size
    if limit is not None and limit < len(pool):
        rng = np.random.default_rng(stream_seed(run.seed, Stream.SUBSAMPLE, number))
        pool = np.sort(rng.choice(pool, size=limit, replace=False))
    n = min(run.query_size, len(pool))
    seed = stream_seed(run.seed, Stream.QUERY, number)
    trainings = project.trainings()
    # What a test folder says must not steer what is queried.
    known = bool(trainings) and trainings[-1].accuracy != "" and config.test is None
    context = QueryContext(
        sample_index=pool,
        num_classes=len(config.classes),
        seed=seed,
        val_accuracy=float(trainings[-1].accuracy) if known else None,
        batch_size=_SCORE_BATCH,
        progress=progress,
    )
    if not trainings:
        picked = Random().pick(None, n, context)
        how = "at random: there is no network yet"
        return [Asked(number, images.names[i], "", "", "", "") for i in pool[picked]], how
    model = Learner(config, images, network).load(project.weights(trainings[-1].training))
    strategy = run.make_strategy()
    part = Subset(images, pool.tolist())
    loader = DataLoader(part, batch_size=_SCORE_BATCH, num_workers=workers)
    scores = strategy.score(model, loader, context)
    picked = strategy.pick(scores, n, context)
    names = [images.names[i] for i in pool[picked]]
    columns = _columns(scores, picked, config.classes)
    rows = [Asked(number, name, *cells) for name, cells in zip(names, columns, strict=True)]
    return rows, f"by {config.run.strategy}, the network of training {trainings[-1].training}"


def _columns(
    scores: PoolScores | None, picked: np.ndarray, classes: Sequence[str]
) -> list[tuple[str, ...]]:
    """Guess, LDR, its percentile rank and entropy of the picked samples; "" for what is not."""
    if scores is None:
        return [("", "", "", "")] * len(picked)
    numbers = (scores.ldr, percentile_rank(scores.ldr), scores.entropy)
    cells = [[score_text(column[i]) for i in picked] for column in numbers]
    guesses = [classes[i] if i >= 0 else "" for i in scores.pseudo_label[picked]]
    return list(zip(guesses, *cells, strict=True))


def _table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for each outcome there is, with its first images."""
    for name, meaning in OUTCOMES.items():
        rows = [row for row in outcomes if row.outcome == name]
        if rows:
            yield f"  {name:<14}{len(rows):>6}  {meaning}"
            if name in (*NOT_TAKEN, "changed"):
                for row in rows[:_EXAMPLES]:
                    change = f"{row.before} -> " if row.before else ""
                    yield f"{'':24}{row.image or '(no name)'}: {change}{', '.join(row.labels)}"


def _standing(project: Project, asked: Sequence[Asked]) -> str:
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


def _described(row: Training, project: Project) -> str:
    where = "in the test folder" if project.config.test is not None else "held out"
    result = "nothing to evaluate it on"
    if row.evaluated:
        result = (
            f"accuracy {100 * float(row.accuracy):.1f}% on {row.evaluated} labels {where}, "
            f"loss {float(row.loss):.3f}"
        )
    return f"training {row.training}: {row.labels} labels, {row.seconds:.1f} s; {result}"


def _next(project: Project, command: str, argument: str = "") -> str:
    return f"next: vaal-ext {command} --project {project.path} {argument}".rstrip()
