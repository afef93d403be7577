"""The way to the nearest of several linearised decision boundaries, per sample."""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import (
    arithmetic_dtype,
    check_labels,
    check_logits,
    check_samples,
    refuse_gradient,
)
from ._transforms import not_differentiable

__all__ = ["deepfool_step"]

_call = not_differentiable("deepfool_step")


def deepfool_step(
    logits: Tensor, gradients: Tensor, reference: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of DeepFool (Moosavi-Dezfooli et al. 2016, Algorithm 2, eq. 8 and 9).

    With g_j = f(candidate j) - f(reference) and w_j its gradient, the linearised boundary g_j = 0
    lies |g_j| / ‖w_j‖₂ away; the step to the nearest one is (|g_j| / ‖w_j‖₂²) w_j. Its norm is the
    distance. No overshoot is in it.

    Norms neither overflow nor underflow. Left out are a candidate that is the reference itself, one
    whose logit is -inf (a class ruled out), one with a gradient of zero (unless g_j = 0: distance
    0) and one whose distance is beyond the range of A. Ties go to the earlier candidate.

    Args:
        logits: [B, C], C >= 1. Any strides.
        gradients: [B, K, ...], K >= 1, of the logits' dtype: entry [i, j] is the gradient of g_j by
            sample i. Read where it lies if the elements of each entry lie together, whatever the
            first two strides: what torch.func.vmap gives as [K, B, ...] needs no copy.
        reference: int64 [B], the class of each sample that the boundaries are against.
        candidates: int64 [B, K], the other classes. The values are not looked at before the kernel
            runs, so nothing waits for the device; a class outside 0..C-1 makes its sample NaN.

    Returns:
        nearest int64[B], the candidate's class; distance A[B]; step [B, ...], contiguous, of the
        gradients' dtype. Where nothing can be reached they are -1, inf and zeros. Where a logit or
        a gradient that counts is NaN or infinite they are -1, NaN and NaN.

    Raises:
        TypeError: not tensors, logits and gradients not of one floating dtype, classes not int64.
        ValueError: shapes or devices that do not fit.
        RuntimeError: an argument requires grad while grad mode is on, or carries a tangent of
            forward mode (this op has no derivative).
    """
    check_logits("logits", logits)
    check_samples("gradients", gradients)
    if gradients.dtype != logits.dtype:
        raise TypeError(
            "logits and gradients must have the same dtype, "
            f"got {logits.dtype} and {gradients.dtype}"
        )
    if gradients.device != logits.device:
        raise ValueError(
            "logits and gradients must have the same device, "
            f"got {logits.device} and {gradients.device}"
        )
    rows = logits.shape[0]
    entries = gradients.shape[1:]
    if len(gradients) != rows or not entries or 0 in entries:
        raise ValueError(
            f"gradients must be [{rows}, K, ...] with K >= 1 and elements in each, got shape "
            f"{list(gradients.shape)}"
        )
    check_labels("reference", reference, (rows,), logits.device)
    check_labels("candidates", candidates, (rows, gradients.shape[1]), logits.device)
    refuse_gradient("deepfool_step", logits, gradients)
    result: tuple[Tensor, Tensor, Tensor] = _call(logits, gradients, reference, candidates)
    return result


@torch.library.register_fake("vaal::deepfool_step")
def _(
    logits: Tensor, gradients: Tensor, reference: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    rows = logits.shape[0]
    return (
        logits.new_empty(rows, dtype=torch.int64),
        logits.new_empty(rows, dtype=arithmetic_dtype(logits)),
        gradients.new_empty((rows, *gradients.shape[2:])),
    )
