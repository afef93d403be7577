"""DeepFool, batched: a small perturbation of each sample that changes its predicted class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vaal_ext.backend import load_backend, require_backend
from vaal_ext.checks import require_int, require_positive
from vaal_ext.cuda.memory import available_memory
from vaal_ext.network.logits import (
    LogitsFn,
    check_input,
    finite_rows,
    flattened,
    forward_of,
    warn_of_probabilities,
)
from vaal_ext.network.state import Model, borrowed, unwrapped
from vaal_ext.perturbation.gradient import input_gradient, lent
from vaal_ext.perturbation.measure import Measured

__all__ = ["Adversarial", "DeepFool", "deepfool"]

# Gradients (samples times classes) that are taken at a time on a CPU. More would not fit into the
# caches (PaperCNN, 9 classes: 3.2 ms a sample with 16 or 32 samples at a time, 4.7 with 256).
_GRADIENTS_AT_A_TIME = 256
# The share of a GPU's available memory that they may take.
_MEMORY_SHARE = 0.5


class Adversarial(NamedTuple):
    """What DeepFool found for a batch; A is float64 where x is, else float32.

    Attributes:
        logits: [B, C], the clean ones.
        perturbation: A [B, ...], overshoot included; zeros where no other class was reached.
        norm: A [B], its 2-norm; inf where no other class was reached, NaN where logits or gradients
            were not finite.
        iterations: int64 [B], steps taken.
        reached: int64 [B], the class at x + perturbation; -1 where none was reached.
    """

    logits: Tensor
    perturbation: Tensor
    norm: Tensor
    iterations: Tensor
    reached: Tensor


@dataclass(frozen=True)
class DeepFool:
    """DeepFool's norm, a measure; its settings are checked when made, see :func:`deepfool`."""

    overshoot: float = 0.02
    max_iter: int = 50
    num_candidates: int | None = None
    backend: str = "fused"

    column: ClassVar[str | None] = "perturbation_norm"
    label: ClassVar[str] = "DeepFool"

    def __post_init__(self) -> None:
        require_positive("overshoot", self.overshoot, or_zero=True)
        require_int("max_iter", self.max_iter, 1)
        if self.num_candidates is not None:
            require_int("num_candidates", self.num_candidates, 1)
        require_backend(self.backend)

    @property
    def settings(self) -> dict[str, Any]:
        """What the norms depend on, see :class:`vaal_ext.perturbation.measure.Measure`."""
        return asdict(self)

    def run(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        index: Tensor,
        mask: Tensor | None = None,
    ) -> Measured:
        """The norms, and where no class was reached; `index` and `mask` are not used. See
        :class:`vaal_ext.perturbation.measure.Measure`."""
        found = self.search(forward, x)
        return Measured(found.logits, found.norm, torch.isinf(found.norm))

    @torch.no_grad()
    def search(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> Adversarial:
        """The perturbation of each sample of x [B, ...], B >= 1; `forward` gives logits [B, C].

        Every iteration takes the gradients of the samples that have not crossed yet, moves them,
        and runs the network forward on them to see which have crossed now: cheaper than gradients
        of samples that are done.
        """
        # Copies: a model may begin with an in-place layer, or write all its logits to one place.
        clean = forward(x.clone()).clone()
        own = clean.argmax(dim=1)
        count = min(clean.shape[1] - 1, self.num_candidates or clean.shape[1])
        candidates = _without(clean, own).topk(count, dim=1).indices
        state = _State(x, float(self.overshoot))
        active = finite_rows(clean).nonzero().squeeze(1)
        state.norm[active] = torch.inf
        active = state.stop_crossed(clean[active], own[active], active)
        if count and len(active):
            at_a_time = _samples_at_a_time(forward, state.moved(active[:1]), count)
        for _ in range(self.max_iter if count else 0):
            if len(active) == 0:
                break
            pieces = active.tensor_split(-(-len(active) // at_a_time))
            active = torch.cat([self._step(forward, state, p, own, candidates) for p in pieces])
            if len(active):
                logits = forward(state.moved(active))
                active = state.stop_crossed(logits, own[active], active)
        return state.result(clean)

    def _step(
        self,
        forward: Callable[[Tensor], Tensor],
        state: _State,
        rows: Tensor,
        own: Tensor,
        candidates: Tensor,
    ) -> Tensor:
        """Moves the samples int64 [n] at `rows` to their nearest boundaries; those that can move.

        A sample whose gradients are all 0, or not finite, stops here.
        """
        own, candidates = own[rows], candidates[rows]
        point = state.moved(rows)
        with torch.enable_grad():
            logits = forward(lent(point.requires_grad_()))
        # One row of cotangents for every class: f(candidate) - f(own).
        towards = candidates.t().unsqueeze(2)
        slopes = logits.new_zeros(candidates.shape[1], *logits.shape)
        slopes.scatter_(2, own.view(1, -1, 1).expand_as(towards), -1.0).scatter_(2, towards, 1.0)
        gradients = input_gradient(logits, point, slopes, batched=True).movedim(1, 0)
        dtype = torch.promote_types(logits.dtype, gradients.dtype)
        _, distance, step = load_backend(self.backend).deepfool_step(
            logits.detach().to(dtype), gradients.to(dtype), own, candidates
        )
        finite = torch.isfinite(distance)
        state.norm[rows[distance.isnan()]] = torch.nan
        rows = rows[finite]
        state.add(rows, step[finite])
        return rows


class _State:
    """Where every sample of a batch stands while DeepFool runs."""

    def __init__(self, x: Tensor, overshoot: float) -> None:
        wide = torch.promote_types(x.dtype, torch.float32)
        self.x = x
        self.factor = 1.0 + overshoot
        self.total = torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format)
        self.norm = torch.full((len(x),), torch.nan, dtype=wide, device=x.device)
        self.iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.reached = torch.full_like(self.iterations, -1)

    def add(self, rows: Tensor, step: Tensor) -> None:
        self.total[rows] += step
        self.iterations[rows] += 1

    def perturbation(self, rows: Tensor) -> Tensor:
        return self.total[rows] * self.factor

    def moved(self, rows: Tensor) -> Tensor:
        """The samples as the network is asked about them, overshoot included."""
        return (self.x[rows] + self.perturbation(rows)).to(self.x.dtype)

    def stop_crossed(self, logits: Tensor, own: Tensor, rows: Tensor) -> Tensor:
        """Enters which samples have left their class by these logits [n, C]; returns the others.

        A sample has left it where another class is as likely: on the boundary it has arrived. One
        whose logits are no longer finite is lost.
        """
        lost = ~finite_rows(logits)
        self.norm[rows[lost]] = torch.nan
        best = _without(logits, own).max(dim=1)
        crossed = best.values >= logits.gather(1, own.unsqueeze(1)).squeeze(1)
        crossed &= (best.values > -torch.inf) & ~lost
        arrived = rows[crossed]
        self.reached[arrived] = best.indices[crossed]
        flat = flattened(self.perturbation(arrived))
        length = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
        self.norm[arrived] = length.to(self.norm.dtype)
        return rows[~(crossed | lost)]

    def result(self, clean: Tensor) -> Adversarial:
        found = (self.reached >= 0).view(-1, *[1] * (self.x.ndim - 1))
        perturbation = torch.where(found, self.total * self.factor, 0.0)
        return Adversarial(clean, perturbation, self.norm, self.iterations, self.reached)


def deepfool(
    model: Model,
    x: Tensor,
    *,
    overshoot: float = 0.02,
    max_iter: int = 50,
    num_candidates: int | None = None,
    backend: str = "fused",
    logits_fn: LogitsFn | None = None,
) -> Adversarial:
    """DeepFool (Moosavi-Dezfooli et al. 2016, Algorithm 2) on a batch, in the 2-norm.

    From x_0 = x each iteration linearises the network at x_i, steps to the nearest boundary between
    the class predicted at x and another one, r_i (:func:`vaal_ext.ops.deepfool_step`), and goes on
    from x_(i+1) = x + (1 + overshoot) Σ r, until another class is at least as likely. The overshoot
    is inside the loop, as in the authors' code: without it the steps would only converge to the
    boundary. (That code also lengthens each step by 1e-4, which the paper does not, nor this.)

    All classes share a forward, and their gradients come from one vectorised backward; samples that
    have crossed leave the batch. The model is lent: see :func:`vaal_ext.ldr_scores`.

    Args:
        model: as for :func:`vaal_ext.ldr_scores`. Its backward runs under torch.vmap.
        x: floating, [B, ...]; not modified.
        overshoot: finite, >= 0, a share of the perturbation.
        max_iter: steps before a sample is given up.
        num_candidates: only the boundaries towards that many of the other classes, the likeliest at
            x; None: towards all of them. Gradients cost time and memory by the class.
        backend: "fused", or "reference" for plain PyTorch.
        logits_fn: takes the logits out of the model's output.

    Raises:
        TypeError, ValueError: see :func:`vaal_ext.ldr_scores`.
        RuntimeError: a layer whose backward torch.vmap cannot vectorise (a recurrent one on CUDA).
    """
    settings = DeepFool(overshoot, max_iter, num_candidates, backend)
    model = unwrapped(model)
    forward = forward_of(model, logits_fn)
    check_input(x)
    load_backend(backend)
    if len(x) == 0:
        raise ValueError("x must hold at least one sample: without one the classes are not known")
    with borrowed(model, x.device):
        found = settings.search(forward, x.detach())
    warn_of_probabilities(model, found.logits)
    return found


def _samples_at_a_time(forward: Callable[[Tensor], Tensor], point: Tensor, count: int) -> int:
    """Of how many samples the gradients, of `count` classes each, are taken at a time.

    `point` [1, ...] is one of the samples. On its way back a gradient passes tensors of the sizes
    that the forward has recorded, and takes no more than all of them together.
    """
    device = point.device
    if device.type != "cuda":
        return max(1, _GRADIENTS_AT_A_TIME // count)
    before = torch.cuda.memory_allocated(device)
    with torch.enable_grad():
        logits = forward(lent(point.requires_grad_()))
    held = torch.cuda.memory_allocated(device) - before
    del logits
    return max(1, int(_MEMORY_SHARE * available_memory(device)) // (count * max(1, held)))


def _without(logits: Tensor, own: Tensor) -> Tensor:
    """logits [B, C] with -inf at the class own int64 [B] of each row."""
    return logits.scatter(1, own.unsqueeze(1), -torch.inf)
