"""The divergence between two posteriors, differentiable once in both logits."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from vaal_ext.checks import require_divergence

from ._checks import arithmetic_dtype, check_pair
from ._transforms import at_work, transformable

__all__ = ["symmetric_kl"]


def symmetric_kl(
    p_logits: Tensor, q_logits: Tensor, *, smoothing: float = 0.0, divergence: str = "symmetric"
) -> Tensor:
    """J = KL(p‖q) + KL(q‖p) of p = softmax(p_logits) and q = softmax(q_logits), per row, in nats.

    Accurate where the textbook formula is noise: for logits that hardly differ and for saturated
    rows (docs/source/how_it_works.md). A constant that all logits of one row are moved by
    changes J only by the rounding of the logits themselves, which for one of hundreds can exceed
    what they differ by. Source: the paper's section III, D_KL(p, q).

    Gradients are as accurate, down to the least normal number of A. On CUDA there is one exception:
    where the largest class of p_logits lies 1 to 30 behind another one in q_logits, the gradient in
    p_logits lacks classes whose p is below e^-57 (in float64 e^-678).

    Args:
        p_logits, q_logits: [B, C], C >= 1, one dtype and device. Any strides. A class at -inf in
            both rows adds nothing; in one of them it makes J infinite, unless its probability
            in the other lies below the least normal number of A (e^-87 in float32), which counts
            as none. NaN gives a NaN row.
        smoothing: s in [0, 1) replaces p by (1 - s) p + s/C, and q likewise (section III, "a small
            amount of uniform distribution").
        divergence: "symmetric" for J, "forward" for KL(p‖q) (Eq. 1).

    Returns:
        A[B], never negative. Differentiable once in both arguments, in reverse and in forward mode,
        with torch.autograd and with torch.func; gradients have the logits' dtype.

    Raises:
        TypeError: not tensors, or not one floating dtype.
        ValueError: shapes, devices, smoothing or divergence that do not fit.
        RuntimeError: when differentiated twice.
    """
    check_pair(p_logits, q_logits)
    require_divergence(divergence, smoothing)
    call = _value if at_work() else torch.ops.vaal.symmetric_kl.default
    result: Tensor = call(p_logits, q_logits, float(smoothing), divergence == "symmetric")
    return result


@torch.library.register_fake("vaal::symmetric_kl")
def _(p_logits: Tensor, q_logits: Tensor, smoothing: float, symmetric: bool) -> Tensor:
    return p_logits.new_empty(p_logits.shape[0], dtype=arithmetic_dtype(p_logits))


@torch.library.register_fake("vaal::symmetric_kl_backward")
def _(
    grad_value: Tensor,
    p_logits: Tensor,
    q_logits: Tensor,
    smoothing: float,
    symmetric: bool,
    need_p: bool,
    need_q: bool,
) -> tuple[Tensor, Tensor]:
    def result(needed: bool) -> Tensor:
        return p_logits.new_empty(p_logits.shape if needed else 0)

    return result(need_p), result(need_q)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    p_logits, q_logits, ctx.smoothing, ctx.symmetric = inputs
    ctx.save_for_backward(p_logits, q_logits)


def _save_for_both(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _save(ctx, inputs, output)
    ctx.save_for_forward(*inputs[:2])


def _backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    # Both gradients are computed anew from the logits: nothing of size [B, C] is kept alive.
    need_p, need_q = ctx.needs_input_grad[:2]
    call = _gradients if at_work() else torch.ops.vaal.symmetric_kl_backward.default
    grad_p, grad_q = call(
        grad_value, *ctx.saved_tensors, ctx.smoothing, ctx.symmetric, need_p, need_q
    )
    return grad_p if need_p else None, grad_q if need_q else None, None, None


def _jvp(ctx: Any, p_tangent: Tensor | None, q_tangent: Tensor | None, *_: None) -> Any:
    p_logits, q_logits = ctx.saved_tensors
    tangents = (p_tangent, q_tangent)
    given = [tangent is not None for tangent in tangents]
    ones = p_logits.new_ones(len(p_logits), dtype=arithmetic_dtype(p_logits))
    gradients = _gradients(ones, p_logits, q_logits, ctx.smoothing, ctx.symmetric, *given)
    terms = [
        (gradient.to(ones.dtype) * tangent).sum(1)
        for gradient, tangent in zip(gradients, tangents, strict=True)
        if tangent is not None
    ]
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _refuse(*_: Any) -> NoReturn:
    raise RuntimeError(
        "symmetric_kl can be differentiated once only; for second derivatives write the textbook "
        "formula in plain PyTorch"
    )


torch.library.register_autograd("vaal::symmetric_kl", _backward, setup_context=_save)
torch.library.register_autograd("vaal::symmetric_kl_backward", _refuse)
_value = transformable(
    torch.ops.vaal.symmetric_kl.default, backward=_backward, jvp=_jvp, setup_context=_save_for_both
)
_gradients = transformable(
    torch.ops.vaal.symmetric_kl_backward.default, backward=_refuse, jvp=_refuse
)
