"""The settings of a search for the perturbation of a sample, and what a search gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vaal_ext.backend import load_backend, require_backend
from vaal_ext.checks import require_divergence, require_int, require_positive
from vaal_ext.perturbation.gradient import Pull

__all__ = ["USUAL_STEPS", "Find", "Perturbed", "SearchSettings", "Starts"]

# The default number of steps of the search, by method.
USUAL_STEPS = {"direct": 0, "finite-difference": 5, "fisher": 5}


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The settings of the search of r (Eq. 1, section III-A of the paper), checked when made.

    Attributes:
        eps: length of the perturbation (the radius of Eq. 1), in units of the network's input.
        method: "direct" goes from x along Jᵀw, J the Jacobian of the logits and w the change of
            them that changes the posterior most (:func:`vaal_ext.ops.fisher_direction`). The power
            iteration from a random start takes the gradient of the divergence at x + xi·u
            ("finite-difference", the paper's) or the exact product of u with the Hessian JᵀFJ at x
            ("fisher").
        num_iters: gradient steps (the paper's Ip) from the random start, >= 1; with
            method="direct" steps after the first, >= 0. None: 5, and 0 with method="direct".
        xi: length of the finite-difference step, in the units of eps; None with the other methods,
            which make none.
        divergence: "symmetric" or "forward", see :func:`vaal_ext.ops.symmetric_kl`.
        smoothing: share of the uniform distribution mixed into both posteriors, in [0, 1); 0 but
            with method="finite-difference".
        backend: "fused" (vaal_ext.ops) or "reference" (vaal_ext.reference).
        sign: "paper" takes the roughness at x + r, "max" the larger of those at x + r and x - r,
            between which the Hessian does not choose.
    """

    eps: float
    method: str = "direct"
    num_iters: int | None = None
    xi: float | None = None
    divergence: str = "symmetric"
    smoothing: float = 0.0
    backend: str = "fused"
    sign: str = "paper"

    def __post_init__(self) -> None:
        if self.method not in USUAL_STEPS:
            known = ", ".join(map(repr, USUAL_STEPS))
            raise ValueError(f"method must be one of {known}, got {self.method!r}")
        if self.sign not in ("paper", "max"):
            raise ValueError(f"sign must be 'paper' or 'max', got {self.sign!r}")
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
            object.__setattr__(self, "num_iters", USUAL_STEPS[self.method])
        require_int("num_iters", self.num_iters, 0 if self.method == "direct" else 1)
        require_backend(self.backend)

    @property
    def divergence_options(self) -> dict[str, Any]:
        """The keywords of :func:`vaal_ext.ops.symmetric_kl`."""
        return {"smoothing": float(self.smoothing), "divergence": self.divergence}


@dataclass(frozen=True)
class Starts:
    """Where the random starts of a batch come from.

    Attributes:
        seed: 0 <= seed < 2^63.
        index: int64 [B] on the device of the batch; with the seed it fixes each sample's start.
        mask: bool, broadcast to the batch. Where it is False nothing moves: a start is 0 there, and
            the network must see to it that the gradient is. None: all may move.
    """

    seed: int
    index: Tensor
    mask: Tensor | None = None

    def from_point(self, x: Tensor, radius: float, backend: str) -> Tensor:
        """x + radius·u like x [B, ...], with the random unit u of each sample."""
        ops, key = load_backend(backend), {"seed": int(self.seed), "sample_index": self.index}
        start: Tensor
        if self.mask is None:
            start = ops.random_perturb(x, radius, **key)
        else:
            direction = ops.random_perturb(torch.zeros_like(x), 1.0, **key)
            start = ops.perturb(x, direction.masked_fill(~self.mask, 0.0), radius)
        return start


class Perturbed(NamedTuple):
    """What a search found.

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


class Find(Protocol):
    """A search: x + r for each sample of x [B, ...], B >= 1. Called under torch.no_grad().

    Args:
        settings: a search reads only those that concern it.
        forward: gives logits [B, C], each sample's dependent on that sample only.
        starts: for a search that begins at random.
        clean: [B, C], detached, the logits that the divergence is measured from; by default those
            of `forward` at x.
        pull: given with `clean` where the caller has recorded their forward: takes a slope like
            them to the gradient by x.
    """

    def __call__(
        self,
        settings: SearchSettings,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        starts: Starts,
        clean: Tensor | None = None,
        pull: Pull | None = None,
    ) -> Perturbed: ...
