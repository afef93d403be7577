"""Networks of several kinds, trained as active learning leaves them, for the searches of r."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from trained import SEED, Trained, trained

from vaal_ext.experiment.datasets.load import load_dataset
from vaal_ext.experiment.training import train
from vaal_ext.models import network_for

# Channel means and deviations of CIFAR-10's training images, as they are usually given.
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR_LABELS = 300
_TOKEN, _WIDTH = 4, 32  # values of a patch of 2x2 pixels, and of what the attention makes of it
_CLASSES, _FEATURES, _OF_A_CLASS = 500, 32, 10


class Kind(NamedTuple):
    """A way to make a network with its pool, and the radii at which it is looked at."""

    make: Callable[[], Trained]
    radii: tuple[float, ...]


class PatchAttention(nn.Module):
    """Two layers of attention over the 16 patches of an 8x8 image; logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(_TOKEN, _WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(16, _WIDTH))
        layer = nn.TransformerEncoderLayer(
            _WIDTH, 4, 2 * _WIDTH, dropout=0.0, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(_WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = nn.functional.unfold(x.reshape(len(x), 1, 8, 8), 2, stride=2).transpose(1, 2)
        logits: Tensor = self.head(self.encoder(self.embed(tokens) + self.place).mean(1))
        return logits


def kinds(
    device: torch.device, samples: int, data_root: Path | None, cifar: Path | None, images: int
) -> Iterator[Kind]:
    """Those that the data at hand allows; pools of at most `samples`, of CIFAR-10 `images`."""
    yield Kind(partial(trained, "digits", None, 100, samples, device), (0.1,))
    yield Kind(partial(attention, samples, device), (0.1, 1.0))
    yield Kind(partial(many_classes, samples, device), (0.16, 1.6))
    if data_root is None:
        yield Kind(partial(untrained, "digits", None, samples, device), (0.1,))
    else:
        for labels, radii in ((100, (0.1,)), (300, (0.1, 2.0)), (1000, (0.1,))):
            yield Kind(partial(trained, "mnist", data_root, labels, samples, device), radii)
        yield Kind(partial(untrained, "mnist", data_root, samples, device), (0.1,))
    if cifar is not None:
        yield Kind(partial(resnet, cifar, images, device), (0.11, 1.1))


def untrained(dataset: str, data_root: Path | None, samples: int, device: torch.device) -> Trained:
    """The data set's network as it is initialised: a posterior that is all but uniform."""
    data = load_dataset(dataset, data_root, SEED)
    shape = tuple(data.train_x.shape[1:])
    model = network_for(shape, data.num_classes, seed=SEED).to(device)
    pool = data.train_x[:samples].to(device)
    return Trained(f"{dataset}, untrained", _frozen(model), pool)


def attention(samples: int, device: torch.device) -> Trained:
    """:class:`PatchAttention` on digits, 100 labels."""
    data = load_dataset("digits", None, SEED)
    order = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(SEED))
    x, y = data.train_x[order].to(device), data.train_y[order].to(device)
    model = _made(PatchAttention).to(device)
    train(model, x[:100], y[:100], steps=300, learning_rate=3e-3, batch_size=32, seed=SEED)
    return Trained("attention, digits, 100 labels", _frozen(model), x[100 : 100 + samples])


def many_classes(samples: int, device: torch.device) -> Trained:
    """An MLP on 500 normal clouds of deviation 0.7 around means of deviation 1, ten labels each."""
    generator = torch.Generator().manual_seed(SEED)
    means = torch.randn(_CLASSES, _FEATURES, generator=generator)
    labelled = _CLASSES * _OF_A_CLASS
    y = torch.arange(labelled + samples) % _CLASSES
    x = means[y] + 0.7 * torch.randn(len(y), _FEATURES, generator=generator)
    order = torch.randperm(labelled, generator=generator)
    model = _made(
        lambda: nn.Sequential(nn.Linear(_FEATURES, 256), nn.ReLU(), nn.Linear(256, _CLASSES))
    ).to(device)
    train(
        model,
        x[order].to(device),
        y[order].to(device),
        steps=1000,
        learning_rate=3e-3,
        batch_size=64,
        seed=SEED,
    )
    return Trained("MLP, 500 classes", _frozen(model), x[labelled:].to(device))


def resnet(folder: Path, samples: int, device: torch.device) -> Trained:
    """torchvision's ResNet-18 on CIFAR-10, 300 labels.

    `folder` is a tree of images, one folder a class, as torchvision's ImageFolder reads it.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.models import resnet18
    from torchvision.transforms import Compose, Normalize, ToTensor

    images = ImageFolder(folder, Compose([ToTensor(), Normalize(_CIFAR_MEAN, _CIFAR_STD)]))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED)).tolist()
    taken = [images[number] for number in order[: CIFAR_LABELS + samples]]
    x = torch.stack([image for image, _ in taken]).to(device)
    y = torch.tensor([label for _, label in taken], device=device)
    model = _made(partial(resnet18, num_classes=len(images.classes))).to(device)
    train(
        model,
        x[:CIFAR_LABELS],
        y[:CIFAR_LABELS],
        steps=200,
        learning_rate=1e-3,
        batch_size=32,
        seed=SEED,
    )
    labelled = x[:CIFAR_LABELS], y[:CIFAR_LABELS]
    return Trained("ResNet-18, CIFAR-10, 300 labels", _frozen(model), x[CIFAR_LABELS:], labelled)


def _made(factory: Callable[[], nn.Module]) -> nn.Module:
    """The module, its weights drawn from the one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return factory()


def _frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)
