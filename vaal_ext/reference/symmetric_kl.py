"""The divergence between two posteriors, per row, differentiable in both logits."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from ._divergence import forward_backward

__all__ = ["symmetric_kl"]


class _Gradients(torch.autograd.Function):
    """The gradients with respect to both logits, which have no derivative themselves."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        _, grad_p, grad_q = forward_backward(*inputs)
        return grad_p, grad_q

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(*_: Any) -> NoReturn:
        raise RuntimeError("reference.symmetric_kl can be differentiated once only")

    @staticmethod
    def jvp(*_: Any) -> NoReturn:
        raise RuntimeError("reference.symmetric_kl can be differentiated once only")


class _SymmetricKL(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(p_logits: Tensor, q_logits: Tensor, smoothing: float, divergence: str) -> Tensor:
        return forward_backward(p_logits, q_logits, smoothing, divergence)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        p_logits, q_logits, ctx.smoothing, ctx.divergence = inputs
        ctx.save_for_backward(p_logits, q_logits)
        ctx.save_for_forward(p_logits, q_logits)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        logits = ctx.saved_tensors
        gradients = _Gradients.apply(*logits, ctx.smoothing, ctx.divergence)
        scale = grad_value.unsqueeze(1)
        grads = [(scale * g).to(x.dtype) for g, x in zip(gradients, logits, strict=True)]
        return *grads, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        gradients = _Gradients.apply(*ctx.saved_tensors, ctx.smoothing, ctx.divergence)
        terms = [
            (gradient * tangent).sum(1)
            for gradient, tangent in zip(gradients, tangents[:2], strict=True)
            if tangent is not None
        ]
        return sum(terms[1:], terms[0])


def symmetric_kl(
    p_logits: Tensor, q_logits: Tensor, *, smoothing: float = 0.0, divergence: str = "symmetric"
) -> Tensor:
    """See :func:`vaal_ext.ops.symmetric_kl`."""
    value: Tensor = _SymmetricKL.apply(p_logits, q_logits, smoothing, divergence)
    return value
