"""The network of a project: made, trained on the labels, evaluated, loaded again."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Mapping, Set
from pathlib import Path

import torch
from torch import Tensor, nn

from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.experiment.training import evaluate, train
from vaal_ext.files.reading import load_torch, require_finite
from vaal_ext.labelling.config import ProjectConfig
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.names import Names
from vaal_ext.labelling.tables import Training
from vaal_ext.models import network_for
from vaal_ext.network.device import device_named
from vaal_ext.network.state import borrowed
from vaal_ext.strategies import parse_strategy
from vaal_ext.vat import VatTerm

__all__ = ["Learner", "fingerprint", "parts", "steps_for"]

# Few labels are learnt by heart early, and what comes after changes little. Tried with the
# settings of a project, PaperCNN, random labels: the accuracy on 800 to 1500 others after 500
# steps, and how much less it was before (mean and standard error, over 4 seeds on MNIST, 5 on
# digits):
#   MNIST, 20 labels: 50.8 %; after 100 steps 1.4 (0.7) less, 150: 0.2 (0.5), 200: 0.6 (0.1)
#   MNIST, 100 labels: 82.7 %; after 100 steps 1.3 (0.7) less, 200: 0.3 (0.2), 300: 0.5 (0.4)
#   MNIST, 500 labels: 93.4 %; after 300 steps 0.6 (0.3) less
#   digits, 20 labels: 63.2 %; after 100 steps 0.6 (0.4) less, 150: 0.1 (0.2) more
#   digits, 100 labels: 89.6 %; after 100 steps 2.5 (0.3) less, 200: 0.5 (0.1), 300: 0.3 (0.2)
#   digits, 500 labels: 98.0 %; after 300 steps 0.5 (0.1) less
_STEPS_FOR_NONE, _STEPS_A_LABEL = 150, 2

_FACTORY = '''\
"""The network of this project, written by vaal-ext train. From this folder:

vaal-ext score --model network:network --weights weights_N.pt --data folder:PATH --out scores.npz
"""

from vaal_ext.models import network_for


def network():
    return network_for({shape}, {num_classes}, seed=0)
'''


def fingerprint(config: ProjectConfig, labels: Mapping[str, str]) -> str:
    """SHA-256, in hex, over what a training depends on; the order of the labels is no part."""
    content = json.dumps([config.training_settings(), sorted(labels.items())], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def parts(
    config: ProjectConfig, labels: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The labels to train on, and those held out: by a hash of seed and name, so that an image that
    was held out once is never trained on, whatever comes to be labelled."""
    share = 0.0 if config.test else config.held_out
    held_out = {
        image: name
        for image, name in labels.items()
        if int(_hash(f"{config.run.seed} {image}")[:8], 16) < share * 2**32
    }
    return {image: name for image, name in labels.items() if image not in held_out}, held_out


def steps_for(config: ProjectConfig, labels: int) -> int:
    """The optimiser steps of a training on so many labels: those that the project has in
    ``steps``, or 150 and two for each label, at most as many as a run on a folder takes.

    With the regulariser (``+vat``) it is always that many: it learns from all images, labelled or
    not.
    """
    most = config.run.resolved().training.steps
    if config.run.steps is not None or parse_strategy(config.run.strategy)[1]:
        return most
    return min(most, _STEPS_FOR_NONE + _STEPS_A_LABEL * labels)


class Learner:
    """Trains and loads the network of a project.

    Args:
        config, images: of the project.
        network: the user's own, fresh, to be trained in place; None makes one.

    Raises:
        ValueError: a network that does not take the images or has another number of outputs.
    """

    def __init__(
        self, config: ProjectConfig, images: ImageFiles, network: nn.Module | None
    ) -> None:
        self.config = config
        self.images = images
        self._device = device_named(config.run.device)
        self._network = None if network is None else self._tried(network.to(self._device))

    def train(
        self, labels: Mapping[str, str], number: int, *, progress: bool
    ) -> tuple[nn.Module, Training]:
        """The network of training `number`, and how it did; ``query`` and the hash are left open.

        Raises:
            ValueError: no labels to train on (see :func:`parts`), or no image of theirs that can be
                read; a label that is no class; a test folder with other classes.
        """
        for name in labels.values():
            if name not in self.config.classes:
                raise ValueError(
                    f"{sum(other == name for other in labels.values())} images have the label "
                    f"{name!r}, which is none of the project's classes: give them another label, "
                    "or name that class in config.json"
                )
        training, evaluation = parts(self.config, labels)
        x, y = self.samples(training, progress)
        if training and len(y) == 0:
            broken = self.images.unreadable([self.images.names.index(min(training))])
            raise ValueError(
                f"none of the {len(training)} labelled images to train on can be read: "
                f"{''.join(broken)}"
            )
        root = self.config.test
        others = self._test(root, progress) if root else self.samples(evaluation, progress)
        run = self.config.run.resolved()
        model = self._model(number)
        vat, seed = None, run.settings.seed
        if run.regulariser is not None:  # over all images, labelled or not: the D of Eq. 3
            pool, _ = self.images.read(range(len(self.images)), progress=progress)
            vat_seed = stream_seed(seed, Stream.VAT, number)
            vat = VatTerm(run.regulariser, pool.to(self._device), vat_seed)
        started = time.perf_counter()
        loss = train(
            model,
            x,
            y,
            steps=steps_for(self.config, len(y)),
            learning_rate=run.training.learning_rate,
            batch_size=run.training.batch_size,
            seed=stream_seed(seed, Stream.LOADER, number),
            progress=progress,
            vat=vat,
        )
        seconds = round(time.perf_counter() - started, 4)
        accuracy = test_loss = ""
        if len(others[1]):
            accuracy, test_loss = (f"{value:.9g}" for value in evaluate(model, *others))
        row = Training(number, 0, len(y), len(others[1]), accuracy, test_loss, loss, seconds, "")
        return model, row

    def others(self, root: Path) -> ImageFiles:
        """The images of another folder, for the network. ValueError if they have another shape."""
        files = ImageFiles.of(self.config, root)
        if files.shape != self.images.shape:
            raise ValueError(
                f"the images in {root} must have the shape of the project's, "
                f"{list(self.images.shape)}, got {list(files.shape)}"
            )
        return files

    def require_test(self) -> None:
        """Nothing, where the project has no test folder, or one that fits.

        Raises:
            ValueError: its images have another shape, or its folders other names than the classes.
            OSError: there is no image in it, or the first cannot be read.
        """
        if self.config.test is not None:
            self._test_files(self.config.test)

    def load(self, weights: Path) -> nn.Module:
        """The network with weights that :meth:`train`'s caller saved. ValueError if they are gone,
        damaged, not finite, or misfit."""
        try:
            state = load_torch(weights)
        except FileNotFoundError:
            raise ValueError(f"{weights} is gone: vaal-ext train makes it again") from None
        except ValueError as error:
            raise ValueError(
                f"{weights} is damaged, {error}: vaal-ext train makes it again"
            ) from error
        model = self._model(0)
        try:
            model.load_state_dict(state)
            require_finite(model.named_parameters())
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{weights} does not fit the network: {reason}. Delete it, and vaal-ext train "
                "makes another"
            ) from error
        return model

    def factory(self) -> str:
        """The text of a module whose ``network()`` is the network, for ``vaal-ext score``."""
        return _FACTORY.format(shape=self.images.shape, num_classes=len(self.config.classes))

    def samples(self, labels: Mapping[str, str], progress: bool) -> tuple[Tensor, Tensor]:
        """The images that can be read, floating [B, ...], and their labels, int64 [B], on the
        network's device. A warning tells how many cannot be read."""
        # By name: the result does not depend on the order in which the answers came.
        position = {name: i for i, name in enumerate(self.images.names)}
        classes = {position[image]: self._class(name) for image, name in labels.items()}
        x, read = self.images.read(sorted(classes), progress=progress)
        y = torch.tensor([classes[row] for row in read], dtype=torch.int64)
        _warn_of_unreadable("labelled images", self.images, classes.keys() - set(read))
        return x.to(self._device), y.to(self._device)

    def _test_files(self, root: str) -> tuple[ImageFiles, dict[str, int]]:
        """The images of the test folder, and the class of each folder in it."""
        files = self.others(Path(root))
        classes, label_of = Names(self.config.classes), {}
        for folder in sorted({name.split("/")[0] for name in files.names}):
            label = classes.find(folder)
            if label is None:
                meant = classes.nearest(folder)
                raise ValueError(
                    f"the folders in {files.root} must be named as the project's classes, got "
                    f"{folder}" + (f" (did you mean {meant}?)" if meant else "")
                )
            label_of[folder] = self._class(label)
        return files, label_of

    def _test(self, root: str, progress: bool) -> tuple[Tensor, Tensor]:
        files, label_of = self._test_files(root)
        x, read = files.read(range(len(files)), progress=progress)
        _warn_of_unreadable("images of the test folder", files, set(range(len(files))) - set(read))
        y = torch.tensor([label_of[files.names[row].split("/")[0]] for row in read])
        return x.to(self._device), y.to(self._device)

    def _class(self, name: str) -> int:
        return self.config.classes.index(name)

    def _model(self, number: int) -> nn.Module:
        if self._network is not None:
            return self._network
        seed = stream_seed(self.config.run.seed, Stream.WEIGHTS, number)
        network = network_for(self.images.shape, len(self.config.classes), seed=seed)
        return network.to(self._device)

    def _tried(self, model: nn.Module) -> nn.Module:
        """The user's network, if it gives an image the logits of the classes."""
        sample = torch.zeros(1, *self.images.shape, device=self._device)
        try:
            with borrowed(model, self._device), torch.no_grad():
                logits = model(sample)
        except Exception as error:  # whatever the user's code raises
            raise ValueError(
                f"{self.config.model} does not take images of shape {list(sample.shape[1:])}: "
                f"{type(error).__name__}: {error}"
            ) from error
        kind = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if kind != [1, len(self.config.classes)]:
            raise ValueError(
                f"{self.config.model} must have an output for each of the "
                f"{len(self.config.classes)} classes, its output is {kind}"
            )
        return model


def _warn_of_unreadable(what: str, images: ImageFiles, positions: Set[int]) -> None:
    if positions:
        broken = images.unreadable(sorted(positions))
        warnings.warn(
            f"{len(broken)} {what} cannot be read, and are left out: {'; '.join(broken)}",
            RuntimeWarning,
            stacklevel=4,
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
