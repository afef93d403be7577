"""The direct search: one gradient, of the change of the logits that changes the posterior most."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor

from vaal_ext.backend import load_backend
from vaal_ext.perturbation.gradient import Pull, recorded
from vaal_ext.perturbation.power_iteration import gradient_step
from vaal_ext.perturbation.search import Perturbed, SearchSettings, Starts

__all__ = ["find"]


def find(
    settings: SearchSettings,
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    starts: Starts,
    clean: Tensor | None = None,
    pull: Pull | None = None,
) -> Perturbed:
    """x + r, r = eps·unit(Jᵀw), w the top eigenvector of diag(p) - ppᵀ; then num_iters steps more.

    It begins at x itself, so it asks for no start. For the arguments see
    :class:`vaal_ext.perturbation.search.Find`.
    """
    ops, eps = load_backend(settings.backend), float(settings.eps)
    if clean is None or pull is None:
        # Both are copied: a model may begin with an in-place layer, or write the next logits to the
        # same place.
        logits, pull = recorded(forward, x.clone())
        clean = logits.detach().clone()
        del logits
    gradient = pull(ops.fisher_direction(clean)[0])
    del pull  # and what it holds of the forward: room for the next one
    moved, norm = ops.perturb(x, gradient, eps, return_norm=True)
    del gradient
    found = Perturbed(clean, moved, [norm], [])
    del moved
    for _ in range(cast(int, settings.num_iters)):
        gradient_step(settings, forward, x, found, eps)
    return found
