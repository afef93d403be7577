"""The paper's power iteration: from a random start, gradients of the divergence at a short step."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor

from vaal_ext.backend import load_backend
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
        # Both are copied: a model may begin with an in-place layer, or write the next logits to the
        # same place.
        clean = forward(x.clone()).clone()
    found = Perturbed(clean, moved, [], [])
    del moved
    for step in range(1, steps + 1):
        gradient_step(settings, forward, x, found, eps if step == steps else xi)
    return found


def gradient_step(
    settings: SearchSettings,
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    found: Perturbed,
    radius: float,
) -> None:
    """Takes `found` a step further: to x + radius·u [B, ...], u the unit gradient of the divergence
    at `moved`.

    Raises:
        ValueError: the logits at x and at `moved` differ in shape or dtype.
    """
    ops, clean = load_backend(settings.backend), found.clean
    logits, gradient_for = recorded(forward, found.moved)
    require_same_classes(clean, logits)
    value, slope = ops.symmetric_kl_direction(clean, logits.detach(), **settings.divergence_options)
    # The gradient takes the place of the point that it was taken at: a batch less is held.
    found.moved = gradient_for(slope)
    del logits, gradient_for
    found.moved, norm = ops.perturb(x, found.moved, radius, return_norm=True)
    found.norms.append(norm)
    found.values.append(value)


def require_same_classes(clean: Tensor, logits: Tensor) -> None:
    """ValueError unless both logits [B, C] are of one shape and dtype."""
    if clean.shape != logits.shape or clean.dtype != logits.dtype:
        raise ValueError(
            f"the model gave {clean.dtype} logits of shape {tuple(clean.shape)} for x and "
            f"{logits.dtype} {tuple(logits.shape)} for x + r: expected the same kind for both"
        )
