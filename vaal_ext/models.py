"""The paper's two networks, and which of them samples of a shape get.

Both take float32 samples [B, ...] and give logits [B, num_classes]. Their initial weights come from
torch's global generator, like those of any ``torch.nn`` module.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["MLP", "PaperCNN", "network_for"]

# Below this side two poolings leave nothing, and a small image is a vector as well as a picture.
_SMALLEST_IMAGE = 8


class MLP(nn.Sequential):
    """Two hidden layers of 1024 units, ReLU, dropout 0.5 (paper section IV.A: the toy sets)."""

    def __init__(
        self, in_features: int, num_classes: int, *, hidden: int = 1024, dropout: float = 0.5
    ) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(in_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )


class PaperCNN(nn.Module):
    """The paper's network of section IV.B: two convolutions and one dense layer, leaky ReLU.

    5x5x32, pool, 5x5x64, pool, 1024 units, dropout 0.5: the tutorial network [22] that the paper
    names, whose split of MNIST its Table I shows. Any image of at least 4 x 4 pixels goes in;
    "same" padding, so each pooling halves the side (rounded down).

    Raises:
        ValueError: a smaller image.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        *,
        channels: tuple[int, int] = (32, 64),
        hidden: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if min(image_size) < 4:
            raise ValueError(f"image_size must be at least 4 x 4, got {tuple(image_size)}")
        first, second = channels
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, first, 5, padding=2),
            nn.LeakyReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2),
            nn.LeakyReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(second * (image_size[0] // 4) * (image_size[1] // 4), hidden),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, num_classes] of images [B, in_channels, H, W], in the dtype of the weights."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


def network_for(shape: tuple[int, ...], num_classes: int, *, seed: int) -> nn.Module:
    """A fresh network for samples of a shape: :class:`PaperCNN` for images, :class:`MLP` else.

    Images are samples [C, H, W] with both sides at least 8. The weights depend on ``seed`` alone;
    torch's global generator is left where it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if len(shape) == 3 and min(shape[1:]) >= _SMALLEST_IMAGE:
            return PaperCNN(shape[0], (shape[1], shape[2]), num_classes)
        return MLP(math.prod(shape), num_classes)
