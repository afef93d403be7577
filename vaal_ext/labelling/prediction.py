"""What the network of a project says of images: a table with a row for each."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from vaal_ext.files.atomic import write_atomically
from vaal_ext.labelling.due import is_fresh, next_step
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.learner import Learner
from vaal_ext.labelling.project import Project
from vaal_ext.network.device import device_named
from vaal_ext.network.state import borrowed
from vaal_ext.pool.batches import pool_batches
from vaal_ext.progress import announced, progress_bar, work_begins

__all__ = ["predict"]

_BATCH = 256


def predict(
    project: Project,
    network: nn.Module | None,
    out: Path,
    *,
    folder: Path | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Iterator[str]:
    """Write the class that the newest trained network gives each image; yields lines about it.

    The table has the columns ``image`` (as in the project's queries), ``predicted`` (a class),
    ``confidence`` (its probability, in [0, 1]) and for every class ``p(CLASS)``, its probability by
    the softmax of the network's logits, in float64. A network trained on few labels is surer of
    itself than it is right: a confidence orders images, and is no accuracy. No column is called
    ``label``, so that nobody gives the table to ``vaal-ext label``.

    Args:
        project: is locked meanwhile.
        network: the user's own, fresh; None for the project's.
        out: the CSV to write.
        folder: whose images, at any depth; None for the project's.
        workers: processes that decode the images.
        progress: whether to show a bar, and to say on stderr at once what is begun.

    Raises:
        ValueError: no network is trained yet; images of another size than the project's; logits
            that are not finite; a damaged project, or a network that does not fit.
        OSError: an image that cannot be read, a file that cannot be written.
    """
    config = project.config
    what = f"predicting the images in {folder or config.images} by {project.path}, to {out}"
    with project.locked(), announced(what):
        trainings = project.trainings()
        if not trainings:
            own = ImageFiles.of(config)
            raise ValueError(f"no network is trained yet; {next_step(project, own)}")
        number = trainings[-1].training
        counts: Counter[str] = Counter()
        with write_atomically(out, "w") as file:  # first: a path that is no good is found at once
            if progress:
                work_begins()
            own = ImageFiles.of(config)
            if not is_fresh(project, own):
                knows = f"training {number}, which knows the old"
                yield f"labels or settings have changed since {knows}"
            learner = Learner(config, own, network)
            images = own if folder is None else learner.others(folder)
            model = learner.load(project.weights(number))
            writer = csv.writer(file, lineterminator="\n")
            columns = (f"p({name})" for name in config.classes)
            writer.writerow(("image", "predicted", "confidence", *columns))
            device, missing = device_named(config.run.device), list[int]()
            posteriors = _posteriors(model, images, device, workers, missing, progress)
            for position, posterior in posteriors:
                name = images.names[position]
                best = int(posterior.argmax())
                predicted = config.classes[best]
                counts[predicted] += 1
                probabilities = [f"{p:.6g}" for p in posterior.tolist()]
                writer.writerow((name, predicted, probabilities[best], *probabilities))
        each = ", ".join(f"{name} {counts[name]}" for name in config.classes)
        done = len(images) - len(missing)
        yield f"{out}: {done} images, by the network of training {number}: {each}"
        if missing:
            yield f"images that could not be read and are left out: {len(missing)}"
            yield from images.unreadable(missing)


def _posteriors(
    model: nn.Module,
    images: ImageFiles,
    device: torch.device,
    workers: int,
    missing: list[int],
    progress: bool,
) -> Iterator[tuple[int, Tensor]]:
    """Position and posterior, float64 [C] on the CPU, of every image in turn that can be read; the
    positions of the others go into `missing`."""
    bar = progress_bar(total=len(images), show=progress, desc="predicting", unit="image")
    with borrowed(model, device), torch.no_grad(), bar:
        for batch, position in pool_batches(images, _BATCH, workers, missing):
            logits = model(batch.to(device)).double().cpu()
            broken = (~logits.isfinite().all(dim=1)).nonzero()
            if len(broken):
                name = images.names[int(position[broken[0]])]
                raise ValueError(f"the network's output for {images.root / name} is not finite")
            yield from zip(position.tolist(), logits.softmax(dim=1), strict=True)
            bar.update(len(position))
