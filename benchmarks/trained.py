"""Networks trained as active learning leaves them, and the samples that it would score next."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

import options
import torch
from torch import Tensor, nn

from vaal_ext.experiment.datasets.load import load_dataset
from vaal_ext.experiment.defaults import settings_for
from vaal_ext.experiment.training import model_for, train

SEED = 0


class Trained(NamedTuple):
    """A network in eval mode, unlabelled samples [N, ...] on its device, and what it learnt from:
    samples [L, ...] and classes [L], none of an untrained one."""

    name: str
    model: nn.Module
    pool: Tensor
    labelled: tuple[Tensor, Tensor] | None = None


def trained(dataset: str, data_root: Path | None, labels: int, pool: int, device) -> Trained:
    """The data set's network after a round of training on `labels` random samples.

    The training is the experiments' own (steps and rate of `settings.SETTINGS`), the samples are
    the first `pool` of those that are left. Everything is drawn from one seed.
    """
    data = load_dataset(dataset, data_root, SEED)
    order = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(SEED))
    x, y = data.train_x[order].to(device), data.train_y[order].to(device)
    settings = settings_for(dataset)
    model = model_for(data, seed=SEED).to(device)
    train(
        model,
        x[:labels],
        y[:labels],
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        seed=SEED,
    )
    samples = x[labels : labels + pool]
    return Trained(
        f"{dataset}, {labels} labels",
        model.eval().requires_grad_(False),
        samples,
        (x[:labels], y[:labels]),
    )


def add_network_options(parser: ArgumentParser, mnist_samples: int = 1000) -> None:
    """What `networks` is told: --data-root, --samples, --mnist-samples."""
    parser.add_argument("--data-root", type=Path, help="folder that holds MNIST/raw")
    parser.add_argument("--samples", type=options.positive, default=1000, help="of digits, at most")
    parser.add_argument("--mnist-samples", type=options.positive, default=mnist_samples)


def networks(
    device: torch.device, digits: int, data_root: Path | None, mnist: int
) -> list[Trained]:
    """Digits with a pool of that size; MNIST too, if there is a `data_root` that holds it."""
    found = [trained("digits", None, 100, digits, device)]
    if data_root is not None:
        found.append(trained("mnist", data_root, 300, mnist, device))
    return found
