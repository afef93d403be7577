"""A network as a function from samples to logits, its input and its output checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from vaal_ext.model_state import Model

__all__ = ["LogitsFn", "check_input", "finite_rows", "flattened", "forward_of"]

LogitsFn = Callable[[Any], Tensor]


def forward_of(
    model: Model, logits_fn: LogitsFn | None, amp: torch.dtype | None = None
) -> Callable[[Tensor], Tensor]:
    """x [B, ...] -> logits [B, C], C >= 1: the model, under autocast to `amp` if given, checked.

    What it returns raises TypeError where the logits are no floating tensor and ValueError where
    they have another shape. TypeError also if `model` or `logits_fn` cannot be called.
    """
    for name, function in (("model", model), ("logits_fn", logits_fn)):
        if not callable(function) and not (name == "logits_fn" and function is None):
            raise TypeError(f"{name} must be callable, got {type(function).__name__}")

    def forward(x: Tensor) -> Tensor:
        with nullcontext() if amp is None else torch.autocast(x.device.type, dtype=amp):
            output = model(x)
            logits = output if logits_fn is None else logits_fn(output)
        if not isinstance(logits, Tensor):
            where = "the model" if logits_fn is None else "logits_fn"
            raise TypeError(
                f"{where} gave {type(logits).__name__} where logits [B, C] were expected: pass "
                "logits_fn= to take the logits out of the model's output, e.g. "
                "logits_fn=lambda output: output[0]"
            )
        if not logits.is_floating_point():
            raise TypeError(f"the logits must be floating point, got {logits.dtype}")
        if logits.ndim != 2 or logits.shape[0] != x.shape[0] or logits.shape[1] == 0:
            raise ValueError(
                f"the logits must have shape [B, C] with B = {x.shape[0]} and C >= 1, got "
                f"{tuple(logits.shape)}"
            )
        return logits

    return forward


def flattened(x: Tensor) -> Tensor:
    """Samples [B, ...] of any dtype as [B, D]; also those of one number each, [B]."""
    return x.unsqueeze(-1).flatten(1)


def check_input(x: Any) -> None:
    """TypeError unless x is a floating tensor, ValueError unless it has a batch dimension."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(
            f"x must be floating point (a perturbation is added to it), got {x.dtype}: convert "
            "and scale it as the network expects its input, or for uint8 images pass "
            "LDRScorer(normalize=(mean, std))"
        )
    if x.ndim == 0:
        raise ValueError("x must have samples along its first dimension, got a scalar")


def finite_rows(logits: Tensor) -> Tensor:
    """bool [B]: no NaN, no +inf, not all -inf. A class at -inf is one ruled out, which is fine."""
    return torch.isfinite(logits.amax(dim=1))
