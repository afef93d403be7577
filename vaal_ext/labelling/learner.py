"""The network of a project: made, trained on the labels, evaluated, loaded again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vaal_ext.device.named import device_named
from vaal_ext.labelling.config import ProjectConfig
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.labelling.project import Training
from vaal_ext.model_state import borrowed
from vaal_ext.models import network_for
from vaal_ext.reading import load_torch, require_finite
from vaal_ext.streams import Stream, stream_seed
from vaal_ext.training import evaluate, train
from vaal_ext.vat import VatTerm

__all__ = ["Learner", "fingerprint", "parts"]

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
            ValueError: no labels to train on, a label that is no class, or a test folder with other
                classes.
        """
        for name in labels.values():
            if name not in self.config.classes:
                raise ValueError(
                    f"{sum(other == name for other in labels.values())} images have the label "
                    f"{name!r}, which is none of the project's classes: give them another label, "
                    "or name that class in config.json"
                )
        training, evaluation = parts(self.config, labels)
        if not training:
            raise ValueError(
                f"there must be a label to train on: the project has {len(labels)} labels, "
                f"{len(evaluation)} of them held out"
            )
        x, y = self._samples(training, progress)
        others = self._test(progress) if self.config.test else self._samples(evaluation, progress)
        run = self.config.run.resolved()
        model = self._model(number)
        vat, settings = None, run.make_vat()
        if settings is not None:  # over all images, labelled or not: the D of Eq. 3
            pool = self.images.read(range(len(self.images)), progress=progress).to(self._device)
            vat = VatTerm(settings, pool, stream_seed(run.seed, Stream.VAT, number))
        started = time.perf_counter()
        loss = train(
            model,
            x,
            y,
            steps=run.steps,
            learning_rate=run.learning_rate,
            batch_size=run.batch_size,
            seed=stream_seed(run.seed, Stream.LOADER, number),
            progress=progress,
            vat=vat,
        )
        seconds = round(time.perf_counter() - started, 4)
        accuracy = test_loss = ""
        if len(others[1]):
            accuracy, test_loss = (f"{value:.9g}" for value in evaluate(model, *others))
        row = Training(number, 0, len(y), len(others[1]), accuracy, test_loss, loss, seconds, "")
        return model, row

    def load(self, weights: Path) -> nn.Module:
        """The network with weights that :meth:`train`'s caller saved. ValueError if they misfit."""
        model = self._model(0)
        try:
            model.load_state_dict(load_torch(weights))
            require_finite(model.named_parameters())
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{weights} is damaged or does not fit the network: {reason}. Delete it, and "
                "vaal-ext train makes another"
            ) from error
        return model

    def factory(self) -> str:
        """The text of a module whose ``network()`` is the network, for ``vaal-ext score``."""
        return _FACTORY.format(shape=self.images.shape, num_classes=len(self.config.classes))

    def _samples(self, labels: Mapping[str, str], progress: bool) -> tuple[Tensor, Tensor]:
        # By name: the result does not depend on the order in which the answers came.
        position = {name: i for i, name in enumerate(self.images.names)}
        rows = sorted((position[image], self._class(name)) for image, name in labels.items())
        x = self.images.read([row for row, _ in rows], progress=progress)
        y = torch.tensor([label for _, label in rows], dtype=torch.int64)
        return x.to(self._device), y.to(self._device)

    def _test(self, progress: bool) -> tuple[Tensor, Tensor]:
        assert self.config.test is not None
        root = Path(self.config.test)
        files = ImageFiles(root, self.config.image_size)
        if files.shape != self.images.shape:
            raise ValueError(
                f"the images in {root} must have the shape of the project's, "
                f"{list(self.images.shape)}, got {list(files.shape)}"
            )
        folders = [name.split("/")[0] for name in files.names]
        for folder in folders:
            if folder not in self.config.classes:
                raise ValueError(
                    f"the folders in {root} must be named as the project's classes, got {folder}"
                )
        y = torch.tensor([self._class(folder) for folder in folders])
        x = files.read(range(len(files)), progress=progress)
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
        sample = self.images[0].unsqueeze(0).to(self._device)
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


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
