"""The gradient of a network's logits by its input alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Pull", "input_gradient", "lent", "recorded"]

# Takes a slope like the logits [B, C] and gives the gradient of the sum of slope·logits by x,
# like x [B, ...].
Pull = Callable[[Tensor], Tensor]


def input_gradient(
    logits: Tensor, x: Tensor, slope: Tensor, *, batched: bool = False, **graph: bool
) -> Tensor:
    """The gradient of the sum of slope·logits by x, like x; slope like logits.

    With `batched` slope is [K, B, C] and the K gradients [K, B, ...] come from one backward under
    torch.vmap. `graph` are torch.autograd.grad's retain_graph and create_graph. ValueError where
    the logits do not depend on x.
    """
    gradient = None
    if logits.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(
                logits, x, slope, allow_unused=True, is_grads_batched=batched, **graph
            )
        except RuntimeError as error:
            if "use_reentrant=True" not in str(error):
                raise
            raise ValueError(
                "the network checkpoints activations in torch's reentrant way, which gives no "
                "gradient by the input alone: call torch.utils.checkpoint.checkpoint(..., "
                "use_reentrant=False), or switch checkpointing off"
            ) from error
    if gradient is None:
        raise ValueError(
            "the logits do not depend on the input through autograd: the model must not detach, "
            "run under torch.no_grad, or turn its input into integers"
        )
    return gradient


def recorded(
    forward: Callable[[Tensor], Tensor], x: Tensor, *, kept: bool = False
) -> tuple[Tensor, Pull]:
    """The logits at x [B, ...], and a function that takes a slope like them to the gradient by x.

    x is given away: it does not require a gradient before, and does afterwards, and a network that
    begins with an in-place layer overwrites it. The function frees what was recorded, unless it is
    to be `kept` for other gradients. It raises what `input_gradient` does, except where
    torch.compile traces: there torch.func does the work, because a graph may not hold
    torch.autograd.grad, and logits that do not depend on x have a gradient of 0.
    """
    if torch.compiler.is_compiling():
        traced = torch.func.vjp(lambda point: forward(point.clone()), x)
        logits, pull = traced[0], traced[1]
        return logits, lambda slope: pull(slope)[0]
    with torch.enable_grad():
        logits = forward(lent(x.requires_grad_()))
    return logits, lambda slope: input_gradient(logits, x, slope, retain_graph=kept)


class _Lent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.data

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def lent(x: Tensor) -> Tensor:
    """The leaf x, of any shape and dtype, as what an in-place layer may write to, over x.

    Nothing is copied. Autograd allows no such write to a leaf, nor to a view of one.
    """
    result: Tensor = _Lent.apply(x)
    return result
