"""The three steps of a round, each of which may be repeated: query, label, train.

A step reads the project's tables, does its work and commits it by replacing one table. Called
again it finds its work done and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn
from torch.utils.data import DataLoader, Subset

from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.files.atomic import write_atomically
from vaal_ext.labelling.answers import NOT_TAKEN, judge, read_answers
from vaal_ext.labelling.due import due, is_current, is_fresh, labels_there, lacking, next_step
from vaal_ext.labelling.handout import hand_out
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.learner import Learner, fingerprint, parts
from vaal_ext.labelling.page import write_project_page
from vaal_ext.labelling.project import Project
from vaal_ext.labelling.tables import Asked, Given
from vaal_ext.labelling.wording import described, outcome_table, standing
from vaal_ext.pool.scores import PoolScores, score_text
from vaal_ext.progress import announced, progress_bar, work_begins
from vaal_ext.selection import percentile_rank
from vaal_ext.strategies import QueryContext, Random

__all__ = ["label", "query", "train"]

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
        progress: whether to show bars, and to say on stderr at once what is begun.

    Raises:
        ValueError: a damaged project, a network that does not fit, an image of another size.
        OSError: an image that cannot be read, a file that cannot be written.
    """
    folder = project.config.images
    what = f"looking for what {project.path} is to ask next, among the images in {folder}"
    with project.locked(), announced(what):
        asked, answers = project.asked(), project.answers()
        if progress:
            work_begins()
        images = ImageFiles.of(project.config)
        pool = np.flatnonzero([name not in answers for name in images.names])
        if len(pool) == 0:
            yield f"all {len(images)} images have an answer: there is nothing left to ask"
            yield next_step(project, images)
            return
        number = asked[-1].query if asked else 0
        current = [row for row in asked if row.query == number]
        if due(project, images)[0] == "query":
            number += 1
            current, how, unreadable = _choose(
                project, network, images, pool, number, workers, progress
            )
            project.write_asked([*asked, *current])
            yield f"query {number}: {len(current)} of {len(pool)} images, {how}"
            if unreadable:
                yield f"images that could not be read and are left out: {len(unreadable)}"
                yield from unreadable
        else:
            done = sum(row.image in answers for row in current)
            yield f"query {number} as before: {done} of its {len(current)} images have an answer"
        yield hand_out(project, current, images)
        yield write_project_page(project, images)
        yield next_step(project, images)


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
        images = ImageFiles.of(project.config)
        known = {*images.names, *before, *(row.image for row in asked)}
        outcomes = judge(answers, before, project.config.classes, known)
        refused = [
            (row.image, label, row.outcome, row.suggestion)
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
        project.write_table("not_taken.csv", ("image", "label", "reason", "suggestion"), refused)
        yield f"{path}: answers to {len(outcomes)} images"
        yield from outcome_table(outcomes)
        if refused:
            yield f"{project.path / 'not_taken.csv'}: mend the label there and give it again"
        yield standing(project, asked)
        labels = labels_there(project, images)
        if not parts(project.config, labels)[0]:
            yield lacking(labels)
        yield next_step(project, images)


def train(project: Project, network: nn.Module | None, *, progress: bool = True) -> Iterator[str]:
    """Train a network on all labels and evaluate it; yields what came of it, in lines.

    It is evaluated on the test folder, or on the labels that are held out of the training: an
    image is held out for good, or never. Where neither labels nor settings have changed since the
    last training, nothing is done. With `progress` stderr is told at once what is begun.

    Raises:
        ValueError: no labels to train on, a damaged project, a network or images that do not fit.
        OSError: an image that cannot be read, a file that cannot be written.
    """
    what = f"training on the labels of {project.path}, of images in {project.config.images}"
    with project.locked(), announced(what):
        trainings = project.trainings()
        if progress and parts(project.config, project.labels())[0]:  # or it is refused below
            work_begins()
        images = ImageFiles.of(project.config)
        labels = labels_there(project, images)
        gone = [image for image in project.labels() if image not in labels]
        if gone:
            yield f"{len(gone)} labelled images are gone and left out ({gone[0]}, ...)"
        if is_current(project, images):
            yield f"training {trainings[-1].training} was on these labels: nothing to do"
        else:
            if not parts(project.config, labels)[0]:
                raise ValueError(f"{lacking(labels)}; {next_step(project, images)}")
            inputs = fingerprint(project.config, labels)
            if is_fresh(project, images):
                trainings.pop()  # its weights are lost: the same network once more
            learner = Learner(project.config, images, network)
            number = trainings[-1].training + 1 if trainings else 1
            model, row = learner.train(labels, number, progress=progress)
            asked = project.asked()
            row = replace(row, query=asked[-1].query if asked else 0, inputs_sha256=inputs)
            project.write_weights(number, {k: v.cpu() for k, v in model.state_dict().items()})
            if project.config.model is None:
                with write_atomically(project.path / "network.py", "w") as file:
                    file.write(learner.factory())
            trainings.append(row)
            project.write_trainings(trainings)
        row = trainings[-1]
        yield described(row, project)
        yield f"{project.weights(row.training)}: its weights, for vaal-ext score; they stay"
        yield write_project_page(project, images)
        yield next_step(project, images)


def _choose(
    project: Project,
    network: nn.Module | None,
    images: ImageFiles,
    pool: np.ndarray,
    number: int,
    workers: int,
    progress: bool,
) -> tuple[list[Asked], str, list[str]]:
    """The rows of query `number`, chosen from the positions `pool` int64 [N], and how; and a line
    for each image that could not be read."""
    config = project.config
    run = config.run.resolved()
    limit, key = run.budget.pool_size, run.settings.seed
    if limit is not None and limit < len(pool):
        rng = np.random.default_rng(stream_seed(key, Stream.SUBSAMPLE, number))
        pool = np.sort(rng.choice(pool, size=limit, replace=False))
    n = min(run.budget.query_size, len(pool))
    seed = stream_seed(key, Stream.QUERY, number)
    trainings = project.trainings()
    # What a test folder says must not steer what is queried.
    known = bool(trainings) and trainings[-1].accuracy != "" and config.test is None
    context = QueryContext(
        n=n,
        sample_index=pool,
        num_classes=len(config.classes),
        seed=seed,
        val_accuracy=float(trainings[-1].accuracy) if known else None,
        batch_size=_SCORE_BATCH,
        progress=progress,
        look=not any(row.guess for row in project.asked()),  # no network has chosen images yet
    )
    if not trainings:
        drawn, unreadable = _drawn(n, context, images)
        how = "at random: there is no network yet"
        return [Asked(number, images.names[i], "", "", "", "") for i in drawn], how, unreadable
    lengths = config.search_lengths(images)
    how = f"by {config.run.strategy}, the network of training {trainings[-1].training}"
    how += "".join(f", {name} {length:g}" for name, length in lengths.items())
    learner = Learner(config, images, network)
    model = learner.load(project.weights(trainings[-1].training))
    training, _ = parts(config, labels_there(project, images))
    context = replace(context, labelled=partial(learner.samples, training, False))
    strategy = replace(config.run, **lengths).resolved().strategy
    part = Subset(images, pool.tolist())
    loader = DataLoader(part, batch_size=_SCORE_BATCH, num_workers=workers)
    scores = strategy.score(model, loader, context)
    if scores is None:
        drawn, unreadable = _drawn(n, context, images)
        return [Asked(number, images.names[i], "", "", "", "") for i in drawn], how, unreadable
    there = scores.pseudo_label >= 0
    unreadable = images.unreadable(pool[~there])
    if not there.any():
        raise _none_readable(len(pool), unreadable)
    picked = strategy.pick(scores, min(n, int(there.sum())), context)
    names = [images.names[i] for i in pool[picked]]
    columns = _columns(scores, picked, config.classes)
    rows = [Asked(number, name, *cells) for name, cells in zip(names, columns, strict=True)]
    return rows, how, unreadable


def _drawn(n: int, context: QueryContext, images: ImageFiles) -> tuple[np.ndarray, list[str]]:
    """The positions of n images (fewer, where there are not so many) that can be read, at random
    from ``context.sample_index``; and a line for each that cannot."""
    pool, unreadable = context.sample_index, list[str]()
    total = len(pool)
    while True:
        context = replace(context, sample_index=pool)
        drawn = pool[Random().pick(None, min(n, len(pool)), context)]
        bar = progress_bar(drawn, show=context.progress, desc="reading images", unit="image")
        broken = [position for position in bar if images[position] is None]
        if not broken:
            return drawn, unreadable
        unreadable += images.unreadable(broken)
        pool = np.setdiff1d(pool, broken)
        if len(pool) == 0:
            raise _none_readable(total, unreadable)


def _none_readable(total: int, unreadable: Sequence[str]) -> ValueError:
    reason = "".join(unreadable[:1])
    return ValueError(f"none of the {total} images to choose from can be read: {reason}")


def _columns(
    scores: PoolScores, picked: np.ndarray, classes: Sequence[str]
) -> list[tuple[str, ...]]:
    """Guess, LDR, its percentile rank and entropy of the picked samples; "" for what is not."""
    numbers = (scores.ldr, percentile_rank(scores.ldr), scores.entropy)
    cells = [[score_text(column[i]) for i in picked] for column in numbers]
    guesses = [classes[i] if i >= 0 else "" for i in scores.pseudo_label[picked]]
    return list(zip(guesses, *cells, strict=True))
