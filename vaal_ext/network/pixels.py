"""Images stored as bytes, and what the network gets to see of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["PixelScale"]


class PixelScale:
    """(x / 255 - mean) / std of a uint8 batch x [B, Ch, ...], as x·scale + shift per channel.

    Args:
        normalize: (mean, std), each a number or a sequence of one number per channel, in units of
            1 for white, the way torchvision's Normalize takes them. (0, 1) gives [0, 1].

    Raises:
        TypeError: not a pair of such. ValueError: not finite, a std of 0 or below, or numbers of
            channels that differ.
    """

    def __init__(self, normalize: Any) -> None:
        if not isinstance(normalize, Sequence) or len(normalize) != 2:
            raise TypeError(f"normalize must be a pair (mean, std), got {normalize!r}")
        self._mean, self._std = (
            _numbers(name, value) for name, value in zip(("mean", "std"), normalize, strict=True)
        )
        if any(std <= 0 for std in self._std):
            raise ValueError(f"normalize: std must be above 0, got {self._std}")
        if len({len(self._mean), len(self._std)} - {1}) > 1:
            raise ValueError(
                f"normalize: mean is for {len(self._mean)} channels and std for {len(self._std)}"
            )
        self._tables: dict[tuple[torch.device, int, int], tuple[Tensor, Tensor]] = {}

    def check(self, x: Tensor) -> None:
        """TypeError unless x is uint8; ValueError unless it is [B, Ch, ...] with these channels."""
        if x.dtype != torch.uint8:
            raise TypeError(
                "normalize (on the command line --mean and --std) is for pools of uint8 images, "
                f"this one is {x.dtype}"
            )
        known = max(len(self._mean), len(self._std))
        if x.ndim < 2 or known not in (1, x.shape[1]):
            raise ValueError(
                f"normalize has numbers for {known} channels, which must be dimension 1 of the "
                f"samples [N, Ch, ...]; they are {list(x.shape)}"
            )

    def input(self, x: Tensor) -> Tensor:
        """The network's input for x [B, Ch, ...]: float32, with the device and strides of x."""
        scale, shift = self._tables_for(x)
        return x.float().mul_(scale).add_(shift)

    def _tables_for(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both float32 [Ch, 1, ...]. Kept: a copy to the device would make the host wait."""
        key = x.device, x.shape[1], x.ndim
        if key not in self._tables:
            mean, std = (
                torch.tensor(values, dtype=torch.float64, device="cpu").expand(x.shape[1])
                for values in (self._mean, self._std)
            )
            scale, shift = (
                table.float().view(-1, *[1] * (x.ndim - 2)).to(x.device)
                for table in (1 / (255 * std), -mean / std)
            )
            self._tables[key] = scale, shift
        return self._tables[key]


def _numbers(name: str, value: Any) -> list[float]:
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64, device="cpu").flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        numbers = []
    if not numbers:
        raise TypeError(f"normalize: {name} must be a number or numbers, got {value!r}")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"normalize: {name} must be finite, got {value!r}")
    return numbers
