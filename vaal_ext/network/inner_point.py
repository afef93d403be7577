"""Perturbation at an inner point of the network: what lies before it, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaal_ext.network.state import Model

__all__ = ["Encode", "InnerPoint"]

Encode = Callable[[Tensor], Any]


@dataclass(frozen=True)
class InnerPoint:
    """Where a batch is perturbed.

    Attributes:
        point: floating [B, ...], detached.
        mask: bool, True where the point may move; broadcast over the last dimensions of `point`.
            None where all of it may move.
        arguments: what the model takes after the point: tensors [B, ...] (the mask first) or None.
    """

    point: Tensor
    mask: Tensor | None
    arguments: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, encode: Encode, x: Tensor) -> InnerPoint:
        """What `encode` makes of a batch x [B, ...]: the point, or a tuple (point, mask, ...).

        Raises:
            TypeError: the point is no floating tensor, the mask no bool tensor, or another argument
                no tensor. ValueError: shapes that do not fit.
        """
        with torch.no_grad():
            encoded = encode(x.clone())  # it may begin with an in-place layer
        point, *arguments = encoded if isinstance(encoded, tuple) and encoded else (encoded,)
        if not isinstance(point, Tensor) or not point.is_floating_point():
            came = getattr(point, "dtype", type(point).__name__)
            raise TypeError(f"encode must give a floating tensor first, got {came}")
        for argument in arguments:
            if not isinstance(argument, Tensor | None):
                raise TypeError(
                    "encode must give tensors or None behind the point, got "
                    f"{type(argument).__name__}"
                )
        for tensor in (point, *arguments):
            if tensor is not None and tensor.shape[:1] != x.shape[:1]:
                raise ValueError(
                    f"what encode gives must have the batch's {len(x)} samples along its first "
                    f"dimension, got shape {list(tensor.shape)}"
                )
        mask = arguments[0] if arguments else None
        if mask is not None and mask.dtype != torch.bool:
            raise TypeError(f"encode's mask must be bool, got {mask.dtype}")
        if mask is not None and mask.shape != point.shape[: mask.ndim]:
            raise ValueError(
                f"encode's mask must have the leading dimensions of the point's shape "
                f"{list(point.shape)}, got {list(mask.shape)}"
            )
        wide = None if mask is None else mask[(..., *[None] * (point.ndim - mask.ndim))]
        return cls(point.detach(), wide, tuple(arguments))

    def model_from(self, model: Model) -> Model:
        """`model` as a function of the point alone, [B, ...] or several such batches in one.

        Where the mask is False the model gets the point itself, so that no gradient comes from
        there: those elements have no part in the perturbation, nor in the gradient's norm.
        """

        def call(moved: Tensor) -> Any:
            copies = len(moved) // len(self.point)
            if self.mask is not None:
                moved = torch.where(
                    _repeated(self.mask, copies), moved, _repeated(self.point, copies)
                )
            rest = (a if a is None else _repeated(a, copies) for a in self.arguments)
            return model(moved, *rest)

        return call


def _repeated(tensor: Tensor, copies: int) -> Tensor:
    return tensor if copies == 1 else tensor.repeat(copies, *[1] * (tensor.ndim - 1))
