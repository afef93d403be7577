"""The search of the perturbation by the Fisher matrix: exact derivatives instead of a step xi."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vaal_ext.forward import flattened

__all__ = ["ATTENTION", "Linearised", "Pull", "input_gradient", "recorded", "search"]

# Of a slope like the logits [B, C]: the gradient of the sum of slope·logits by x, like x [B, ...].
Pull = Callable[[Tensor], Tensor]

# The one of torch's attention kernels whose gradient can be differentiated.
ATTENTION = SDPBackend.MATH


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
    """The logits at x [B, ...], and the call that makes of a slope like them their gradient by x.

    x needs no gradient before, and does afterwards. The call frees what was recorded, unless it is
    to be `kept` for other gradients. It raises what `input_gradient` does, except where
    torch.compile traces: there torch.func does the work, because a graph may not hold
    torch.autograd.grad, and logits that do not depend on x have a gradient of 0.
    """
    if torch.compiler.is_compiling():
        traced = torch.func.vjp(lambda point: forward(point.clone()), x)
        logits, pull = traced[0], traced[1]
        return logits, lambda slope: pull(slope)[0]
    with torch.enable_grad():
        x.requires_grad_()
        logits = forward(x.clone())
    return logits, lambda slope: input_gradient(logits, x, slope, retain_graph=kept)


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
            self._x = x.detach().clone().requires_grad_()
            # Its own copy of the input: a model may begin with an in-place layer.
            self._recorded = forward(self._x.clone())
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


def search(
    ops: ModuleType, network: Linearised, x: Tensor, unit: Tensor, num_iters: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x + eps·u, u after num_iters steps u <- JᵀFJu / ‖·‖ per sample from the directions `unit`.

    Called under torch.no_grad().

    F = diag(p) - ppᵀ is the Hessian of KL(p‖q) by q's logits at r = 0, so JᵀFJ is the one of
    section III-A of the paper. Between two classes it has rank one, and u is the gradient of the
    difference of their logits, with the sign that one step would give it: no iteration.

    Args:
        ops: the back end, of which `fisher_product` and `perturb` are called.
        network: the network around x [B, ...].
        unit: like x, of any length but 0.

    Returns:
        The perturbed samples like x; bool [B] twice: where every gradient was finite, and where
        one was 0 (such a sample stays at x).
    """
    if network.logits.shape[1] == 2:
        towards_second = torch.zeros_like(network.logits)
        towards_second[:, 1] = 1
        gradient = network.pull(ops.fisher_product(network.logits, towards_second))
        moved, norm = ops.perturb(x, _facing(gradient, unit), eps, return_norm=True)
        return moved, torch.isfinite(norm), norm == 0
    origin = torch.zeros_like(x)
    finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
    flat = torch.zeros_like(finite)
    for step in range(1, num_iters + 1):
        product = ops.fisher_product(network.logits, network.push(unit))
        gradient = network.pull(product)
        start, radius = (x, eps) if step == num_iters else (origin, 1.0)
        unit, norm = ops.perturb(start, gradient, radius, return_norm=True)
        finite &= torch.isfinite(norm)
        flat |= norm == 0
    return unit, finite, flat


def _facing(gradient: Tensor, unit: Tensor) -> Tensor:
    """The gradient of each sample, turned round where it points away from `unit`."""
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    along = flattened(gradient.to(dtype) * unit.to(dtype)).sum(1)
    sign = torch.where(along < 0, -1, 1).to(gradient.dtype)
    return gradient * sign.view(-1, *[1] * (gradient.ndim - 1))
