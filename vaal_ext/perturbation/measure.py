"""What can be measured of every sample of a pool: LDR, DeepFool's norm, or the posterior alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Measure", "Measured", "Posterior"]


class Measured(NamedTuple):
    """The results of one batch, detached and on the device of the model's output.

    Attributes:
        logits: [B, C], the clean logits.
        value: [B], float64 where the logits are, else float32; NaN where any logits on the way were
            not finite. None where nothing but the posterior was asked for.
        failed: bool [B], True where the measure failed (LDR: a gradient was 0 in every element, so
            the value is 0; DeepFool: no other class was reached). None where `value` is.
    """

    logits: Tensor
    value: Tensor | None = None
    failed: Tensor | None = None


class Measure(Protocol):
    """Something that gives a number for every sample, from batches run through a network.

    Attributes:
        column: the array of :class:`vaal_ext.PoolScores` that the values fill; None for none.
        label: what the bar says while it runs.
    """

    column: ClassVar[str | None]
    label: ClassVar[str]

    @property
    def settings(self) -> dict[str, Any]:
        """What the values depend on, by name, in the types that JSON has."""

    def run(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        index: Tensor,
        mask: Tensor | None = None,
    ) -> Measured:
        """The values of the samples x [B, ...], B >= 1; called in eval mode.

        Args:
            forward: gives logits [B, C], each sample's dependent on that sample only.
            index: int64 [B] on the device of x; it fixes each sample's random start.
            mask: bool, broadcast to x, True where x may move; None: everywhere.
        """


@dataclass(frozen=True)
class Posterior:
    """Nothing but the clean logits."""

    column: ClassVar[str | None] = None
    label: ClassVar[str] = "posterior"
    settings: ClassVar[dict[str, Any]] = {}

    def run(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        index: Tensor,
        mask: Tensor | None = None,
    ) -> Measured:
        """The logits [B, C] alone, see :class:`Measure`."""
        with torch.no_grad():
            return Measured(forward(x.clone()))  # a model may begin with an in-place layer
