"""The settings of a search for the perturbation of a sample, and what a search gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

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

    :func:`vaal_ext.ldr_scores` says what each of them means. It, :class:`vaal_ext.LDRScorer` and
    :func:`vaal_ext.vat_loss` spell them out as keywords with these defaults, for whoever calls them
    to read; what they may be is asked here alone.

    Raises:
        TypeError, ValueError: a setting of a wrong type or out of its range, or two of them that do
            not go together.
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


@dataclass
class Perturbed:
    """What a search has found so far.

    Attributes:
        clean: [B, C], the logits of x, detached.
        moved: [B, ...], x + r.
        norms: A [B] each, of the gradients on the way; 0 where one was flat.
        values: A [B] each, the divergences on the way.
    """

    clean: Tensor
    moved: Tensor
    norms: list[Tensor]
    values: list[Tensor]

    def judged(self, roughness: Tensor) -> tuple[Tensor, Tensor]:
        """The roughness A [B] of `moved`, changed in place, and bool [B], where it is flat.

        It is 0 where a gradient was: a flat sample never left x, whatever two forwards round to. It
        is NaN where anything on the way was not finite, the clean logits among it, whose divergence
        from any others is NaN.
        """
        norms = [norm.to(roughness.device) for norm in self.norms]
        met = torch.stack([*norms, *self.values, roughness])
        flat = (met[: len(norms)] == 0).any(0)
        total = met.sum(0)  # of numbers >= 0: finite where all of them are
        return roughness.masked_fill_(flat, 0.0).add_(total - total), flat


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
