"""The paper's power iteration: from a random start, gradients of the divergence at a short step."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from vaal_ext.backend import load_backend
from vaal_ext.network.logits import finite_rows
from vaal_ext.perturbation.gradient import Pull, recorded
from vaal_ext.perturbation.search import Perturbed, SearchSettings, Starts

__all__ = ["find", "gradient_step", "require_same_classes"]


def find(
    settings: SearchSettings,
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    starts: Starts,
    clean: Tensor | None = None,
    pull: Pull | None = None,
) -> Perturbed:
    """x + r by section III-A of the paper: u <- unit gradient of J(f(x), f(x + xi·u)), r = eps·u.

    For the arguments see :class:`vaal_ext.perturbation.search.Find`.
    """
    eps, steps = float(settings.eps), cast(int, settings.num_iters)
    xi = float(cast(float, settings.xi))  # a number with this method, see SearchSettings
    moved = starts.from_point(x, xi, settings.backend)
    if clean is None:
        # Every call gets its own copy of the input: a model may begin with an in-place layer.
        # And the logits are copied: a model may write the next ones to the same place.
        clean = forward(x.clone()).clone()
    finite = finite_rows(clean)
    flat = torch.zeros_like(finite)
    for step in range(1, steps + 1):
        radius = eps if step == steps else xi
        gradient_step(settings, forward, clean, x, moved, radius, finite, flat)
    return Perturbed(clean, moved.detach(), finite, flat)


def gradient_step(
    settings: SearchSettings,
    forward: Callable[[Tensor], Tensor],
    clean: Tensor,
    x: Tensor,
    moved: Tensor,
    radius: float,
    finite: Tensor,
    flat: Tensor,
) -> None:
    """Moves `moved` [B, ...] to x + radius·u, u the unit gradient of the divergence there.

    Updates in place `moved` and, bool [B], `finite` (whether all divergences so far were) and
    `flat` (whether a gradient was 0). No tensor made here outlives the step: it would lie between
    the network's activations and keep the heap from using their memory again, and the page faults
    would cost more than the copy.

    Raises:
        ValueError: the logits at x and at `moved` differ in shape or dtype.
    """
    ops = load_backend(settings.backend)
    logits, gradient_for = recorded(forward, moved)
    require_same_classes(clean, logits)
    value, slope = ops.symmetric_kl_direction(clean, logits.detach(), **settings.divergence_options)
    # The gradient takes the place of the point that it was taken at: a batch less is held.
    moved.copy_(gradient_for(slope))
    result, norm = ops.perturb(x, moved, radius, return_norm=True)
    moved.copy_(result)
    flat |= (norm == 0).to(flat.device)
    finite &= torch.isfinite(value)


def require_same_classes(clean: Tensor, logits: Tensor) -> None:
    """ValueError unless both logits [B, C] are of one shape and dtype."""
    if clean.shape != logits.shape or clean.dtype != logits.dtype:
        raise ValueError(
            f"the model gave {clean.dtype} logits of shape {tuple(clean.shape)} for x and "
            f"{logits.dtype} {tuple(logits.shape)} for x + r: expected the same kind for both"
        )
