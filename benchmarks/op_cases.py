"""The contests of bench_ops.py: for each op its inputs, who takes part, and how answers are judged.

An answer is judged row by row against the reference in float64. A row's error is relative to the
divergence and to the largest entry of its gradient, to the radius of a step, or (posterior) to one.
Half types are computed in float32 by everybody, as autocast does for log_softmax and kl_div.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vaal_ext import ops, reference

Call = Callable[..., object]
OURS = "vaal_ext"
LIGER = "Liger-Kernel"
HAS_LIGER = importlib.util.find_spec("liger_kernel") is not None
# A formula that lacks a factor, a sign or a term is off by a tenth or more at half the rows, and
# the roundings of bfloat16 (2^-8) add up to 0.02 at most: what lies between tells them apart.
WRONG = 0.05


class WrongAnswer(Exception):
    """An opponent (or we) computed something else: there is nothing to time."""


@dataclass(frozen=True)
class Case:
    """One op at one shape.

    Attributes:
        inputs: what every contestant is called with.
        contestants: name -> function of the inputs, ours first.
        errors: answer -> relative error of each row, float64 [B].
        bytes: that must be read and written at least.
    """

    inputs: tuple[Tensor, ...]
    contestants: dict[str, Call]
    errors: Callable[[object], Tensor]
    bytes: int

    def judged(self) -> dict[str, tuple[float, float]]:
        """Median and worst error over the rows, by contestant (the copy apart).

        Raises:
            WrongAnswer: a median that no rounding explains.
        """
        found = {}
        for name, call in self.contestants.items():
            if name == "clone":
                continue
            errors = self.errors(call(*self.inputs))
            median, worst = errors.median().item(), errors.max().item()
            if not median < WRONG:
                raise WrongAnswer(f"{name} is off by {median:.1e} at half the rows: not timed")
            found[name] = median, worst
        return found


# ---------------------------------------------------------------- the divergence and its gradient


def autograd_kl(a: Tensor, b: Tensor, *, divergence: str) -> tuple[Tensor, Tensor]:
    """ops.symmetric_kl and torch.autograd.grad: the exact gradient, in two passes."""
    b = b.detach().requires_grad_()
    value = ops.symmetric_kl(a, b, divergence=divergence)
    (gradient,) = torch.autograd.grad(value, b, torch.ones_like(value))
    return value.detach(), gradient


def eager_kl(a: Tensor, b: Tensor, *, divergence: str) -> tuple[Tensor, Tensor]:
    """F.kl_div with log_softmax, and torch.autograd.grad: what VAT code does."""
    b = b.detach().requires_grad_()
    log_p, log_q = F.log_softmax(a.float(), dim=1), F.log_softmax(b.float(), dim=1)
    value = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    if divergence == "symmetric":
        value = value + F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)
    (gradient,) = torch.autograd.grad(value, b, torch.ones_like(value))
    return value.detach(), gradient


def kl_by_hand(a: Tensor, b: Tensor, *, divergence: str) -> tuple[Tensor, Tensor]:
    """The same formula and its gradient, written out."""
    log_p, log_q = F.log_softmax(a.float(), dim=1), F.log_softmax(b.float(), dim=1)
    p, q, ratio = log_p.exp(), log_q.exp(), log_q - log_p
    change = q - p
    if divergence == "forward":
        return -(p * ratio).sum(1), change.to(b.dtype)
    gradient = q * (ratio - (q * ratio).sum(1, keepdim=True)) + change
    return (change * ratio).sum(1), gradient.to(b.dtype)


def liger_kl(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Liger-Kernel's KL (Triton) on log_softmax: the forward KL summed over the batch."""
    from liger_kernel.transformers import LigerKLDIVLoss

    b = b.detach().requires_grad_()
    log_p, log_q = F.log_softmax(a.float(), dim=1), F.log_softmax(b.float(), dim=1)
    value = LigerKLDIVLoss(reduction="sum", log_target=True)(log_q, log_p)
    (gradient,) = torch.autograd.grad(value, b)
    return value.detach(), gradient


def direction_errors(found: Tensor, expected: Tensor) -> Tensor:
    """Of each row, scaled to maximum 1 as `expected` is. A row of zeros stays zeros: its error is
    then 1, the lost direction's."""
    peak = found.double().abs().amax(1, keepdim=True).clamp_min(1e-300)
    return (found.double() / peak - expected).abs().amax(1)


def kl_case(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, divergence: str
) -> Case:
    """Value and gradient with respect to the perturbed logits."""
    logits = torch.randn(shape, device=device) * 3
    a, b = logits.to(dtype), (logits + 0.1 * torch.randn_like(logits)).to(dtype)
    value, direction = reference.symmetric_kl_direction(
        a.double(), b.double(), divergence=divergence
    )

    def errors(answer) -> Tensor:
        of_direction = direction_errors(answer[1], direction)
        expected = value if answer[0].ndim else value.sum()
        return torch.maximum(
            of_direction, (answer[0] - expected).abs() / expected.clamp_min(1e-300)
        )

    how = {"divergence": divergence}
    contestants: dict[str, Call] = {
        OURS: partial(ops.symmetric_kl_direction, **how),
        f"{OURS}, autograd": partial(autograd_kl, **how),
        "eager autograd": partial(eager_kl, **how),
        "by hand": partial(kl_by_hand, **how),
        "torch.compile": compiled(partial(kl_by_hand, **how)),
    }
    if divergence == "forward" and device.type == "cuda" and HAS_LIGER:
        contestants[LIGER] = liger_kl
    contestants["clone"] = lambda a, b: a.clone()
    return Case((a, b), contestants, errors, 3 * a.nbytes)


def fisher_by_hand(logits: Tensor, tangents: Tensor) -> Tensor:
    """The product as it is written, at its own size."""
    p = logits.float().softmax(dim=1)
    weighed = p * tangents.float()
    return (weighed - p * weighed.sum(1, keepdim=True)).to(logits.dtype)


def fisher_case(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Case:
    """The product of the posterior's Fisher matrix with a tangent, up to a row's size."""
    logits, tangents = ((torch.randn(shape, device=device) * s).to(dtype) for s in (3, 1))
    expected = reference.fisher_product(logits.double(), tangents.double())

    def errors(answer: Tensor) -> Tensor:
        return direction_errors(answer, expected)

    contestants = {
        OURS: ops.fisher_product,
        "eager": fisher_by_hand,
        "torch.compile": compiled(fisher_by_hand),
        "clone": lambda logits, tangents: logits.clone(),
    }
    return Case((logits, tangents), contestants, errors, 3 * logits.nbytes)


def fisher_direction_by_hand(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel's formulas (csrc/math/fisher_direction.h) on whole tensors, five steps for all."""
    a = logits.float()
    top, k = a.max(1, keepdim=True)
    others = a.scatter(1, k, -torch.inf)
    runner_up = others.amax(1, keepdim=True)
    shift = others - runner_up
    weight, gap = shift.exp(), -torch.expm1(runner_up - top)
    distance = -torch.expm1(shift) / gap.clamp(min=2.0**-120)
    ratio, rest = (runner_up - top).exp(), weight.sum(1, keepdim=True)
    mean = (rest - (weight * distance).sum(1, keepdim=True) / rest) / (1 + ratio * rest)
    sigma = torch.maximum(1 / (1 + ratio), mean)
    for _ in range(5):
        share = 1 / (sigma + distance)
        total = (weight * share).sum(1, keepdim=True)
        slope = (weight * share * share).sum(1, keepdim=True) + ratio * total * total
        sigma = sigma + total * ((1 - ratio * sigma) * total - 1) / slope
    entries = weight / (sigma + distance)
    vector = (entries / entries.sum(1, keepdim=True)).scatter(1, k, -1.0)
    curvature = ratio / (1 + ratio * rest) * (1 + gap * sigma)
    return vector.to(logits.dtype), curvature.squeeze(1)


def fisher_direction_by_eigh(logits: Tensor) -> tuple[Tensor, Tensor]:
    """What PyTorch has for it: all eigenvectors of the C x C matrices."""
    p = logits.float().softmax(1)
    matrix = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    values, vectors = torch.linalg.eigh(matrix)
    vector = vectors[:, :, -1]
    pivot = vector.gather(1, logits.argmax(1, keepdim=True))
    return (-pivot.sign() * vector).to(logits.dtype), values[:, -1]


def fisher_direction_case(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Case:
    """The eigenvector, up to a row's size; of few classes also by dense matrices."""
    logits = (torch.randn(shape, device=device) * 3).to(dtype)
    expected, curvature = reference.fisher_direction(logits.double())

    def errors(answer: tuple[Tensor, Tensor]) -> Tensor:
        of_curvature = (answer[1].double() / curvature - 1).abs()
        return torch.maximum(direction_errors(answer[0], expected), of_curvature)

    contestants: dict[str, Call] = {
        OURS: ops.fisher_direction,
        "eager": fisher_direction_by_hand,
        "torch.compile": compiled(fisher_direction_by_hand),
        "clone": lambda logits: logits.clone(),
    }
    if shape[1] <= 10:
        contestants["eigh"] = fisher_direction_by_eigh
    return Case((logits,), contestants, errors, 2 * logits.nbytes)


# --------------------------------------------------------------------------------- the steps


def step_by_hand(x: Tensor, direction: Tensor, *, radius: float) -> Tensor:
    norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    return x + radius * (direction / norm)


def random_step_by_hand(x: Tensor, index: Tensor, *, radius: float) -> Tensor:
    """From torch's generator: other numbers, and they depend on the batch."""
    return step_by_hand(x, torch.randn_like(x), radius=radius)


def perturb_case(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Case:
    """x + radius · d/‖d‖. The radius makes a step of one per element: half types hold it too."""
    x, direction = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    radius = math.sqrt(math.prod(shape[1:]))
    expected = step_by_hand(x.double(), direction.double(), radius=radius)

    def errors(answer) -> Tensor:
        return (answer.double() - expected).flatten(1).norm(dim=1) / radius

    step = partial(step_by_hand, radius=radius)
    contestants = {
        OURS: lambda x, direction: ops.perturb(x, direction, radius),
        "eager": step,
        "torch.compile": compiled(step),
        "clone": lambda x, direction: x.clone(),
    }
    return Case((x, direction), contestants, errors, 3 * x.nbytes)


def random_perturb_case(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Case:
    """x + radius · n/‖n‖, n normal: the length is what all must get right. Ours draws numbers that
    are known: its first rows are held against the reference as well."""
    x, index = torch.randn(shape, device=device).to(dtype), torch.arange(shape[0], device=device)
    radius = math.sqrt(math.prod(shape[1:]))

    def ours(x: Tensor, index: Tensor) -> Tensor:
        return ops.random_perturb(x, radius, seed=0, sample_index=index)

    def errors(answer) -> Tensor:
        return ((answer.double() - x.double()).flatten(1).norm(dim=1) / radius - 1).abs()

    few = x[:2], index[:2]
    expected = reference.random_perturb(few[0].double(), radius, seed=0, sample_index=few[1])
    error = (ours(*few).double() - expected).norm() / expected.norm()
    if not error < WRONG:
        raise WrongAnswer(f"random_perturb is off by {error:.1e}: not timed")
    step = partial(random_step_by_hand, radius=radius)
    contestants = {
        OURS: ours,
        "eager": step,
        "torch.compile": compiled(step),
        "clone": lambda x, index: x.clone(),
    }
    return Case((x, index), contestants, errors, 2 * x.nbytes)


def deepfool_by_hand(
    gradients: Tensor, logits: Tensor, own: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The formula as it stands."""
    w, f = gradients.float().flatten(2), logits.float()
    gap = f.gather(1, candidates) - f.gather(1, own.unsqueeze(1))
    norm = w.norm(dim=2)
    distance, slot = (gap.abs() / norm).min(1, keepdim=True)
    chosen = w.gather(1, slot.unsqueeze(2).expand(-1, 1, w.shape[2]))[:, 0]
    step = (distance / norm.gather(1, slot) * chosen).to(gradients.dtype)
    return candidates.gather(1, slot)[:, 0], distance[:, 0], step.view(gradients[:, 0].shape)


def deepfool_case(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Case:
    """The step to the nearest of K boundaries, shape [B, K, ...]: gradients as torch.vmap leaves
    them, [K, B, ...] in memory."""
    rows, slots = shape[:2]
    memory = torch.randn(slots, rows, *shape[2:], device=device).to(dtype)
    logits = torch.randn(rows, slots + 1, device=device).to(dtype)
    own = logits.argmax(1)
    # Every other class, in descending order of its logit.
    candidates = logits.scatter(1, own.unsqueeze(1), -math.inf).topk(slots, dim=1).indices
    given = memory.transpose(0, 1), logits, own, candidates
    expected = reference.deepfool_step(logits.double(), given[0].double(), own, candidates)[2]

    def errors(answer) -> Tensor:
        # Where logits tie, which half types do, the step is none.
        difference = (answer[2].double() - expected).flatten(1).norm(dim=1)
        length = expected.flatten(1).norm(dim=1)
        return difference / torch.where(length == 0, 1.0, length)

    contestants = {
        OURS: lambda gradients, logits, *classes: ops.deepfool_step(logits, gradients, *classes),
        "eager": deepfool_by_hand,
        "torch.compile": compiled(deepfool_by_hand),
        "clone": lambda gradients, *_: gradients.clone(),
    }
    least = memory.nbytes + 2 * memory[0].nbytes
    return Case(given, contestants, errors, least)


# ------------------------------------------------------------------------------- the posterior


def summary_by_hand(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pseudo label, entropy and margin from softmax and topk."""
    log_p = F.log_softmax(logits.float(), dim=1)
    p = log_p.exp()
    top, label = p.topk(2, dim=1)
    return label[:, 0], -(p * log_p).sum(1), top[:, 0] - top[:, 1]


def summary_case(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Case:
    """Pseudo label, entropy and margin, C >= 2."""
    logits = (torch.randn(shape, device=device) * 3).to(dtype)
    _, entropy, margin = reference.posterior_summary(logits.double())

    def errors(answer) -> Tensor:
        label, found_entropy, found_margin = answer
        # Where logits tie, which half types do, any of the largest is a right answer.
        missed = logits.gather(1, label.view(-1, 1)).squeeze(1) != logits.amax(1)
        numbers = torch.maximum((found_entropy - entropy).abs(), (found_margin - margin).abs())
        return torch.maximum(numbers, missed.double())

    contestants = {
        OURS: ops.posterior_summary,
        "eager": summary_by_hand,
        "torch.compile": compiled(summary_by_hand),
        "clone": lambda logits: logits.clone(),
    }
    return Case((logits,), contestants, errors, logits.nbytes)


def compiled(function: Call) -> Call:
    """Compiled afresh for every shape, as a user with one shape would have it."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)
