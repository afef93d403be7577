"""The virtual adversarial perturbation of a batch, and the roughness it finds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from vaal_ext.backend import load_backend, require_backend
from vaal_ext.checks import require_divergence, require_int, require_positive
from vaal_ext.fisher import ATTENTION, Linearised, Pull, recorded, search
from vaal_ext.forward import finite_rows

__all__ = ["Perturbed", "PowerIteration", "Roughness"]


# Steps of the search where nobody says how many, by method.
_USUAL_ITERS = {"direct": 0, "finite-difference": 5, "fisher": 5}


class Roughness(NamedTuple):
    """What one batch gave: all of it detached and on the device of the model's output.

    Attributes:
        logits: [B, C], the clean logits.
        ldr: [B], float64 where the logits are, else float32; NaN where any logits on the way were
            not finite, and 0 where the gradient was 0.
        flat: bool [B], True where a gradient was 0 in every element.
    """

    logits: Tensor
    ldr: Tensor
    flat: Tensor


class Perturbed(NamedTuple):
    """What the search found.

    Attributes:
        clean: [B, C], the logits of x, detached.
        moved: [B, ...], x + r.
        finite: bool [B], where everything on the way was finite.
        flat: bool [B], where a gradient was 0.
    """

    clean: Tensor
    moved: Tensor
    finite: Tensor
    flat: Tensor


@dataclass(frozen=True)
class PowerIteration:
    """The settings of the search of r (Eq. 1, section III-A of the paper), checked when made.

    Attributes:
        eps: length of the perturbation (the radius of Eq. 1), in units of the network's input.
        method: "direct" goes from x along Jᵀw, J the Jacobian of the logits and w the change of
            them that changes the posterior most (:func:`vaal_ext.ops.fisher_direction`). The power
            iteration from a random start takes the gradient of the divergence at x + xi·u
            ("finite-difference", the paper's) or the exact product of u with the Hessian JᵀFJ at x
            ("fisher", :mod:`vaal_ext.fisher`).
        num_iters: gradient steps (the paper's Ip) from the random start, >= 1; with
            method="direct" steps after the first, >= 0. None: 5, and 0 with method="direct".
        xi: length of the finite-difference step, in the units of eps; None with the other methods,
            which make none.
        divergence: "symmetric" or "forward", see :func:`vaal_ext.ops.symmetric_kl`.
        smoothing: share of the uniform distribution mixed into both posteriors, in [0, 1); 0 but
            with method="finite-difference".
        seed: of the random starts, 0 <= seed < 2^63.
        backend: "fused" (vaal_ext.ops) or "reference" (vaal_ext.reference).
        sign: "paper" takes the roughness at x + r, "max" the larger and "mean" the mean of those
            at x + r and x - r, between which the Hessian does not choose.
    """

    eps: float
    method: str = "direct"
    num_iters: int | None = None
    xi: float | None = None
    divergence: str = "symmetric"
    smoothing: float = 0.0
    seed: int = 0
    backend: str = "fused"
    sign: str = "paper"

    def __post_init__(self) -> None:
        if self.method not in _USUAL_ITERS:
            known = ", ".join(map(repr, _USUAL_ITERS))
            raise ValueError(f"method must be one of {known}, got {self.method!r}")
        if self.sign not in ("paper", "max", "mean"):
            raise ValueError(f"sign must be 'paper', 'max' or 'mean', got {self.sign!r}")
        require_positive("eps", self.eps)
        require_divergence(self.divergence, self.smoothing)
        if self.method == "finite-difference":
            if self.xi is None:
                raise TypeError("xi must be a number with method='finite-difference', got None")
            require_positive("xi", self.xi)
        else:
            if self.xi is not None:
                raise ValueError(
                    f"xi must be None with method={self.method!r}, which makes no such step, got "
                    f"{self.xi} (method='finite-difference' makes one)"
                )
            if self.smoothing:
                raise ValueError(
                    f"smoothing must be 0 with method={self.method!r}, whose matrix is that of the "
                    f"posterior as it is, got {self.smoothing}: take method='finite-difference'"
                )
        if self.num_iters is None:
            object.__setattr__(self, "num_iters", _USUAL_ITERS[self.method])
        require_int("num_iters", self.num_iters, 0 if self.method == "direct" else 1)
        require_int("seed", self.seed, 0, 2**63 - 1)
        require_backend(self.backend)

    def run(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        index: Tensor,
        mask: Tensor | None = None,
    ) -> Roughness:
        """The roughness of each sample of x [B, ...], B >= 1; index int64 [B] keys its start.

        Where a `mask` (bool, broadcast to x) is False nothing moves: the start is 0 there, and
        `forward` must see to it that the gradient is.

        With n = num_iters: n + 2 calls of `forward` and n + 1 gradients with respect to the input
        alone (from a random start n + 2 calls and n gradients, with method="fisher" 2 and 2·n + 1).
        `forward` must give logits [B, C]
        and let each sample's depend on that sample only. The KL itself is never recorded: its
        gradient with respect to the logits comes from one op, scaled per row so that half types do
        not underflow (only its direction matters). Nothing in here waits for the device.
        """
        # One kernel for both posteriors: what another one rounds otherwise would count as J.
        exact = self.method == "fisher"
        with torch.no_grad(), sdpa_kernel(ATTENTION) if exact else nullcontext():
            clean, moved, finite, flat = self.search(forward, x, index, mask=mask)
            ldr = self.divergence_of(forward, clean, x, moved)
            # A flat sample never left x, so its roughness is 0: not the rounding of two forwards.
            ldr = ldr.masked_fill(flat, 0.0)
            ldr = ldr.masked_fill(~(finite & torch.isfinite(ldr)), torch.nan)
        return Roughness(clean, ldr, flat)

    def search(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        index: Tensor,
        clean: Tensor | None = None,
        mask: Tensor | None = None,
        pull: Pull | None = None,
    ) -> Perturbed:
        """x + r for each sample of x [B, ...]; `forward`, `index` and `mask` as in :meth:`run`.

        `clean` [B, C] are the logits that the divergence is measured from, detached; without them
        they are those of `forward`. (method="fisher" is exact at the logits of its own forward.)
        `pull`, for method="direct" alone and with `clean`, makes of a slope like the clean logits
        its gradient by x, where the caller has recorded their forward.
        """
        # (Not a decorator, which torch.compile cannot trace on a method.)
        with torch.no_grad():
            if self.method == "direct":
                return self._search_directly(forward, x, clean, pull)
            if self.method == "fisher":
                return self._search_by_fisher(forward, x, index, clean, mask)
            return self._search_by_differences(forward, x, index, clean, mask)

    def _search_directly(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        clean: Tensor | None,
        pull: Pull | None,
    ) -> Perturbed:
        ops, eps = load_backend(self.backend), float(self.eps)
        if clean is None or pull is None:
            logits, pull = recorded(forward, x.clone())
            # The logits are copied: a model may write the next ones to the same place.
            clean = logits.detach().clone()
            del logits
        gradient = pull(ops.fisher_direction(clean)[0])
        del pull  # and what it holds of the forward: room for the next one
        moved, norm = ops.perturb(x, gradient, eps, return_norm=True)
        del gradient
        finite = finite_rows(clean) & torch.isfinite(norm).to(clean.device)
        flat = (norm == 0).to(clean.device)
        for _ in range(cast(int, self.num_iters)):
            self._step(forward, clean, x, moved, eps, finite, flat)
        return Perturbed(clean, moved.detach(), finite, flat)

    def _search_by_fisher(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        index: Tensor,
        clean: Tensor | None,
        mask: Tensor | None,
    ) -> Perturbed:
        ops, eps = load_backend(self.backend), float(self.eps)
        network = Linearised(forward, x)
        clean = network.logits if clean is None else clean
        unit = self._start(torch.zeros_like(x), 1.0, index, mask)
        moved, finite, flat = search(ops, network, x, unit, cast(int, self.num_iters), eps)
        finite, flat = finite.to(clean.device), flat.to(clean.device)
        return Perturbed(clean, moved, finite & finite_rows(clean), flat)

    def _search_by_differences(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        index: Tensor,
        clean: Tensor | None,
        mask: Tensor | None,
    ) -> Perturbed:
        eps = float(self.eps)
        xi = float(cast(float, self.xi))  # a number with this method, see __post_init__
        moved = self._start(x, xi, index, mask)
        if clean is None:
            # Every call gets its own copy of the input: a model may begin with an in-place layer.
            # And the logits are copied: a model may write the next ones to the same place.
            clean = forward(x.clone()).clone()
        finite = finite_rows(clean)
        flat = torch.zeros_like(finite)
        for step in range(1 - cast(int, self.num_iters), 1):
            radius = xi if step else eps
            self._step(forward, clean, x, moved, radius, finite, flat)
        return Perturbed(clean, moved.detach(), finite, flat)

    def _start(self, x: Tensor, radius: float, index: Tensor, mask: Tensor | None) -> Tensor:
        """x + radius·u like x [B, ...], with the random unit u that seed and index give."""
        ops, key = load_backend(self.backend), {"seed": int(self.seed), "sample_index": index}
        start: Tensor
        if mask is None:
            start = ops.random_perturb(x, radius, **key)
        else:
            direction = ops.random_perturb(torch.zeros_like(x), 1.0, **key)
            start = ops.perturb(x, direction.masked_fill(~mask, 0.0), radius)
        return start

    def divergence_of(
        self, forward: Callable[[Tensor], Tensor], clean: Tensor, x: Tensor, moved: Tensor
    ) -> Tensor:
        """A[B]: what `sign` makes of the divergences at moved = x + r and at x - r.

        Both go through the network in one batch of twice the size.
        """
        ops = load_backend(self.backend)
        value: Tensor
        if self.sign == "paper":
            logits = forward(moved)
            _same_classes(clean, logits)
            value = ops.symmetric_kl(clean, logits, **self.divergence_options)
            return value
        both = torch.cat([moved, x - (moved - x)])
        clean, logits = clean.repeat(2, 1), forward(both)
        _same_classes(clean, logits)
        value = ops.symmetric_kl(clean, logits, **self.divergence_options)
        value = value.view(2, -1)
        return value.amax(0) if self.sign == "max" else value.mean(0)

    def _step(
        self,
        forward: Callable[[Tensor], Tensor],
        clean: Tensor,
        x: Tensor,
        moved: Tensor,
        radius: float,
        finite: Tensor,
        flat: Tensor,
    ) -> None:
        """Moves `moved` [B, ...] to x + radius·u, u the unit gradient of the divergence there.

        Updates in place: `moved`, and bool [B] `finite` (all of the divergences so far) and `flat`
        (a gradient was 0). Nothing that is made here outlives the step: what lies between the
        network's activations would keep the heap from using their memory again, and page faults
        would cost more than the copy.
        """
        ops = load_backend(self.backend)
        logits, gradient_for = recorded(forward, moved)
        _same_classes(clean, logits)
        value, slope = ops.symmetric_kl_direction(clean, logits.detach(), **self.divergence_options)
        # The gradient takes the place of the point that it was taken at: a batch less is held.
        moved.copy_(gradient_for(slope))
        result, norm = ops.perturb(x, moved, radius, return_norm=True)
        moved.copy_(result)
        flat |= (norm == 0).to(flat.device)
        finite &= torch.isfinite(value)

    @property
    def divergence_options(self) -> dict[str, Any]:
        """The keywords of :func:`vaal_ext.ops.symmetric_kl`."""
        return {"smoothing": float(self.smoothing), "divergence": self.divergence}


def _same_classes(clean: Tensor, logits: Tensor) -> None:
    if clean.shape != logits.shape or clean.dtype != logits.dtype:
        raise ValueError(
            f"the model gave {clean.dtype} logits of shape {tuple(clean.shape)} for x and "
            f"{logits.dtype} {tuple(logits.shape)} for x + r: expected the same kind for both"
        )
