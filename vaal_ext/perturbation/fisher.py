"""The search of the perturbation by the Fisher matrix: exact derivatives instead of a step xi."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vaal_ext.backend import load_backend
from vaal_ext.network.logits import flattened
from vaal_ext.perturbation.gradient import Pull, input_gradient, lent
from vaal_ext.perturbation.search import Perturbed, SearchSettings, Starts

__all__ = ["ATTENTION", "Linearised", "find"]

# The one of torch's attention kernels whose gradient can be differentiated.
ATTENTION = SDPBackend.MATH


class Linearised:
    """The network around x: products with the Jacobian of each sample's logits, from one forward.

    Jᵀw is one backward of the recorded forward. Ju is the derivative of Jᵀw by w, along u: one
    backward through that backward, which costs about as much as a forward and asks less of the
    layers than forward-mode differentiation does (measured with the paper's CNN: a fifth of its
    time). Two recorded passes are held as long as this lives.

    Attributes:
        logits: [B, C], detached.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> None:
        with torch.enable_grad(), sdpa_kernel(ATTENTION):
            # Its own copy of the input: a model may begin with an in-place layer.
            self._x = x.detach().clone().requires_grad_()
            self._recorded = forward(lent(self._x))
        # A model may write its next logits to the same place.
        self.logits = self._recorded.detach().clone()
        self._pulled: Tensor | None = None

    def pull(self, w: Tensor) -> Tensor:
        """Jᵀw like x [B, ...] for w like the logits [B, C]."""
        return input_gradient(self._recorded, self._x, w, retain_graph=True)

    def push(self, u: Tensor) -> Tensor:
        """Ju like the logits [B, C] for u like x [B, ...].

        Raises:
            ValueError: a layer's gradient cannot be differentiated.
        """
        try:
            if self._pulled is None:
                with torch.enable_grad():
                    # Jᵀw is linear in w, so its derivative does not depend on where it is taken.
                    self._w = torch.zeros_like(self.logits).requires_grad_()
                    self._pulled = input_gradient(
                        self._recorded, self._x, self._w, create_graph=True
                    )
            return torch.autograd.grad(self._pulled, self._w, u, retain_graph=True)[0]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                "method='fisher' differentiates the network's gradient once more, which this model "
                f"does not allow ({reason}): take method='finite-difference', or do not compile "
                "the model"
            ) from error


def find(
    settings: SearchSettings,
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    starts: Starts,
    clean: Tensor | None = None,
    pull: Pull | None = None,
) -> Perturbed:
    """x + eps·u, u after num_iters steps u <- JᵀFJu / ‖·‖ per sample from a random direction.

    F = diag(p) - ppᵀ is the Hessian of KL(p‖q) by q's logits at r = 0, so JᵀFJ is the one of
    section III-A of the paper. With two classes it has rank one, so nothing is iterated: u is the
    gradient of the difference of their logits, with the sign that one step would give it.

    The search is exact at the logits of its own forward, also where `clean` is given. For the
    arguments see :class:`vaal_ext.perturbation.search.Find`.
    """
    ops, eps, steps = load_backend(settings.backend), float(settings.eps), settings.num_iters
    network = Linearised(forward, x)
    clean = network.logits if clean is None else clean
    origin = torch.zeros_like(x)
    unit = starts.from_point(origin, 1.0, settings.backend)
    norms = []
    if network.logits.shape[1] == 2:
        towards_second = torch.zeros_like(network.logits)
        towards_second[:, 1] = 1
        gradient = network.pull(ops.fisher_product(network.logits, towards_second))
        moved, norm = ops.perturb(x, _facing(gradient, unit), eps, return_norm=True)
        norms.append(norm)
    else:
        for step in range(1, cast(int, steps) + 1):
            gradient = network.pull(ops.fisher_product(network.logits, network.push(unit)))
            start, radius = (x, eps) if step == steps else (origin, 1.0)
            unit, norm = ops.perturb(start, gradient, radius, return_norm=True)
            norms.append(norm)
        moved = unit  # from x with length eps, by the last step
    return Perturbed(clean, moved, norms, [])


def _facing(gradient: Tensor, unit: Tensor) -> Tensor:
    """The gradient of each sample, turned round where it points away from `unit`."""
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    along = flattened(gradient.to(dtype) * unit.to(dtype)).sum(1)
    sign = torch.where(along < 0, -1, 1).to(gradient.dtype)
    return gradient * sign.view(-1, *[1] * (gradient.ndim - 1))
