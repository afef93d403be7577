"""The ops in plain PyTorch: the oracle of the tests and the opponent of the benchmarks.

Every op has a twin here with its name, arguments and results (:func:`random_normal` is the start
direction by itself); of the arguments only divergence and smoothing are checked. The formulas are
the pivot formulas of the README ("Why the numbers are right"). `symmetric_kl` and
`posterior_summary` are computed in the dtype of the input (float16 and bfloat16 in float32), the
others in float64 and rounded once: ``reference.f(x.double())`` is the oracle for a float32 kernel.
Nothing here is fused, and nothing here is fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, overload

import torch
from torch import Tensor

from vaal_ext.checks import require_divergence

__all__ = [
    "deepfool_step",
    "fisher_product",
    "perturb",
    "posterior_summary",
    "random_normal",
    "random_perturb",
    "symmetric_kl",
    "symmetric_kl_direction",
]

_HALF = (torch.float16, torch.bfloat16)


def _compute(x: Tensor) -> Tensor:
    """x in the dtype the arithmetic runs in: half types in float32, the others as they are."""
    return x.float() if x.dtype in _HALF else x


def _phi(u: Tensor) -> Tensor:
    """expm1(u) - u without cancellation: its Taylor series where |u| < 0.5."""
    small = u.abs() < 0.5
    v = torch.where(small, u, torch.zeros_like(u))
    series = torch.zeros_like(v)
    # 1/n! down to n = 2: the first term left out is below 2^-53 of the sum at |u| = 0.5.
    for n in range(16, 1, -1):
        series = series * v + 1.0 / math.factorial(n)
    return torch.where(small, series * v * v, torch.expm1(u) - u)


def _pivot(p_logits: Tensor, q_logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """p, q, q - p, u = log q - log p and delta, each [B, C], free of cancellation.

    Everything is measured from k = argmax p_logits, so that what is subtracted is small where the
    result is small. A class where both logits are -inf has p = q = 0 and adds nothing; a row of
    nothing else has no posterior and is NaN.
    """
    a, b = _compute(p_logits), _compute(q_logits)
    k = a.argmax(dim=1, keepdim=True)
    absent = (a == -torch.inf) & (b == -torch.inf)
    absent = absent & ~absent.all(dim=1, keepdim=True)
    alpha = a - a.gather(1, k)
    delta = ((b - a) - (b.gather(1, k) - a.gather(1, k))).masked_fill(absent, 0.0)
    # -inf stays -inf where the pivot's is too; at the pivot 0.
    beta = (b - b.gather(1, k)).masked_fill(b == -torch.inf, -torch.inf).scatter(1, k, 0.0)
    others = torch.ones_like(a).scatter_(1, k, 0.0).bool()
    # shift > 0 only where the argmax has moved: it keeps exp(beta) finite.
    shift = beta.amax(dim=1, keepdim=True).clamp_min(0.0)
    w = alpha.exp()
    z = 1.0 + (w * others).sum(dim=1, keepdim=True)
    # e^alpha * expm1(delta), from the larger of the two exponentials so that neither overflows.
    larger = torch.maximum(alpha, beta) - shift
    d = torch.copysign(larger.exp() * -torch.expm1(-delta.abs()), delta)
    d = torch.where(others & ~absent, d, torch.zeros_like(d)).sum(dim=1, keepdim=True)
    u = delta - torch.log1p(d * shift.exp() / z)
    log_q = b - b.logsumexp(dim=1, keepdim=True)
    # Where the argmax moved by more than 30, J is of order one and the direct difference is exact.
    u = torch.where(shift > 30.0, log_q - (a - a.logsumexp(dim=1, keepdim=True)), u)
    p, q = w / z, log_q.exp()
    diff = torch.where((u.abs() < 1.0) & (shift <= 30.0), p * torch.expm1(u), q - p)
    u = u.masked_fill(absent, 0.0)
    delta = torch.where(shift > 30.0, u, delta)  # equal to delta up to a constant of the row
    return p, q, diff.masked_fill(absent, 0.0), u, delta


def _times(weight: Tensor, x: Tensor) -> Tensor:
    """weight * x with 0 * inf = 0: a class of probability zero carries no weight."""
    return torch.where(weight == 0, torch.zeros_like(x), weight * x)


def _softmax_pullback(p: Tensor, h: Tensor) -> Tensor:
    """p (h - sum p h). On a saturated row one class is almost the whole sum: h is measured from
    there, so that nothing cancels."""
    largest = h.gather(1, p.argmax(dim=1, keepdim=True))
    weighted = _times(p, h - largest.masked_fill(largest.isinf(), 0.0))
    return weighted - p * weighted.sum(1, keepdim=True)


def _smoothed(
    p_logits: Tensor,
    q_logits: Tensor,
    p: Tensor,
    q: Tensor,
    diff: Tensor,
    smoothing: float,
    divergence: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of both posteriors mixed with the uniform distribution: csrc/math/smoothed_kl.h."""
    a, b = _compute(p_logits), _compute(q_logits)
    keep, floor = 1.0 - smoothing, smoothing / p.shape[1]
    ps, qs, ds = keep * p + floor, keep * q + floor, keep * diff
    # log1p of a number >= 0: log1p(ds / ps) has no digits left where qs is far below ps.
    v = torch.copysign(torch.log1p(ds.abs() / torch.minimum(ps, qs)), ds)
    symmetric = divergence == "symmetric"
    value = ds * v if symmetric else ps * _phi(v)

    def gradient(
        own: tuple[Tensor, Tensor, Tensor], other: tuple[Tensor, Tensor, Tensor], terms: str
    ) -> Tensor:
        """By the logits of `own`, each side given as its logits, its posterior and the mixed one.

        Σ own_j (h_j - Σ own h) with h measured from that of the largest class of `own`, formed
        as a difference: subtracted, the h of several classes that share a posterior would cancel.
        """
        logits, share, mixed = own
        r = logits.argmax(dim=1, keepdim=True)
        share_r, other_r = share.gather(1, r), other[1].gather(1, r)
        grown = other[0] - logits
        grown = grown - grown.gather(1, r)
        expected = share * (other_r / share_r)
        moved = torch.where(grown.abs() <= 1.0, expected * torch.expm1(grown), other[1] - expected)
        change_r = -share_r * moved.sum(1, keepdim=True)
        beside = torch.expm1(logits - logits.gather(1, r))
        mixed_r = mixed.gather(1, r)
        excess = keep * (mixed_r * moved + floor * change_r * beside)
        falls = excess < 0
        lower = torch.where(falls, other[2] * mixed_r, mixed * other[2].gather(1, r))
        h = torch.zeros_like(excess)
        if "log" in terms:
            h = h - torch.copysign(torch.log1p(excess.abs() / lower), excess)
        if "linear" in terms:
            h = h - excess / (mixed * mixed_r)
        weighted = _times(share, h)
        return keep * (weighted - share * weighted.sum(1, keepdim=True))

    sides = (a, p, ps), (b, q, qs)
    grad_p = gradient(sides[0], sides[1], "log linear" if symmetric else "log")
    grad_q = gradient(sides[1], sides[0], "log linear" if symmetric else "linear")
    return value.sum(1), grad_p, grad_q


def _forward_backward(
    p_logits: Tensor, q_logits: Tensor, smoothing: float, divergence: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Value [B] and the gradients [B, C] with respect to both logits."""
    require_divergence(divergence, smoothing)
    p, q, diff, u, delta = _pivot(p_logits, q_logits)
    if smoothing:
        return _smoothed(p_logits, q_logits, p, q, diff, smoothing, divergence)
    if divergence == "symmetric":
        value = _times(diff, u).sum(1)
        grad_q = _softmax_pullback(q, delta) + diff
        grad_p = -_softmax_pullback(p, delta) - diff
    else:
        value = torch.where(u.abs() < 0.5, p * _phi(u), diff - _times(p, u)).sum(1)
        grad_q = diff
        grad_p = -_softmax_pullback(p, delta)  # -p (u + KL), KL = -sum p u
    return value, grad_p, grad_q


class _Gradients(torch.autograd.Function):
    """The gradients with respect to both logits, which have no derivative themselves."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        _, grad_p, grad_q = _forward_backward(*inputs)
        return grad_p, grad_q

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(*_: Any) -> NoReturn:
        raise RuntimeError("reference.symmetric_kl can be differentiated once only")

    @staticmethod
    def jvp(*_: Any) -> NoReturn:
        raise RuntimeError("reference.symmetric_kl can be differentiated once only")


class _SymmetricKL(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(p_logits: Tensor, q_logits: Tensor, smoothing: float, divergence: str) -> Tensor:
        return _forward_backward(p_logits, q_logits, smoothing, divergence)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        p_logits, q_logits, ctx.smoothing, ctx.divergence = inputs
        ctx.save_for_backward(p_logits, q_logits)
        ctx.save_for_forward(p_logits, q_logits)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        logits = ctx.saved_tensors
        gradients = _Gradients.apply(*logits, ctx.smoothing, ctx.divergence)
        scale = grad_value.unsqueeze(1)
        grads = [(scale * g).to(x.dtype) for g, x in zip(gradients, logits, strict=True)]
        return *grads, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        gradients = _Gradients.apply(*ctx.saved_tensors, ctx.smoothing, ctx.divergence)
        terms = [
            (gradient * tangent).sum(1)
            for gradient, tangent in zip(gradients, tangents[:2], strict=True)
            if tangent is not None
        ]
        return sum(terms[1:], terms[0])


def symmetric_kl(
    p_logits: Tensor, q_logits: Tensor, *, smoothing: float = 0.0, divergence: str = "symmetric"
) -> Tensor:
    """See :func:`vaal_ext.ops.symmetric_kl`."""
    value: Tensor = _SymmetricKL.apply(p_logits, q_logits, smoothing, divergence)
    return value


def symmetric_kl_direction(
    p_logits: Tensor, q_logits: Tensor, *, smoothing: float = 0.0, divergence: str = "symmetric"
) -> tuple[Tensor, Tensor]:
    """See :func:`vaal_ext.ops.symmetric_kl_direction`. Computed in float64 and rounded once."""
    dtype = torch.promote_types(p_logits.dtype, torch.float32)
    value, _, grad = _forward_backward(p_logits.double(), q_logits.double(), smoothing, divergence)
    peak = grad.abs().amax(dim=1, keepdim=True) if grad.shape[1] else grad[:, :0]
    scaled = grad / torch.where(peak == 0, torch.ones_like(peak), peak)
    return value.to(dtype), scaled.to(q_logits.dtype)


def fisher_product(logits: Tensor, tangents: Tensor) -> Tensor:
    """See :func:`vaal_ext.ops.fisher_product`. Computed in float64 and rounded once."""
    a, v = logits.double(), tangents.double()
    if not a.numel():
        return torch.empty_like(tangents, memory_format=torch.contiguous_format)
    k = a.argmax(dim=1, keepdim=True)
    others = a.scatter(1, k, -torch.inf)
    absent = others == -torch.inf
    # Measured from the runner-up: with the pivot's gap in it, a weight would round by its size.
    runner_up = others.amax(dim=1, keepdim=True)
    runner_up = torch.where(runner_up == -torch.inf, a.gather(1, k), runner_up)
    shift = runner_up - a.gather(1, k)
    weight = (others - runner_up).exp()
    moved = (v - v.gather(1, k)).masked_fill(absent, 0.0)
    pivot = (weight * moved).sum(1, keepdim=True) / (
        1.0 + shift.exp() * weight.sum(1, keepdim=True)
    )
    product = (weight * (moved - shift.exp() * pivot)).scatter(1, k, -pivot)
    product = product + 0.0 * (a + v).gather(1, k)  # NaN where the pivot is not finite
    peak = product.abs().amax(dim=1, keepdim=True)
    return (product / torch.where(peak == 0, torch.ones_like(peak), peak)).to(tangents.dtype)


def fisher_direction(logits: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`vaal_ext.ops.fisher_direction`. Computed in float64 and rounded once.

    The formulas are in csrc/math/fisher_direction.h.
    """
    accumulate = torch.promote_types(logits.dtype, torch.float32)
    a = logits.double()
    if not a.numel():
        return torch.empty_like(logits), logits.new_empty(len(logits), dtype=accumulate)
    k = a.argmax(dim=1, keepdim=True)
    a_k = a.gather(1, k)
    others = a.scatter(1, k, -torch.inf)
    runner_up = others.amax(dim=1, keepdim=True)
    alone = runner_up == -torch.inf
    runner_up = torch.where(alone, a_k, runner_up)
    shift = (others - runner_up).masked_fill(others == -torch.inf, -torch.inf)
    weight, gap = shift.exp(), -torch.expm1(runner_up - a_k)
    distance = -torch.expm1(shift) / gap.clamp(min=2.0**-120)
    ratio, rest = (runner_up - a_k).exp(), weight.sum(1, keepdim=True)
    mean = (rest - (weight * distance).sum(1, keepdim=True) / rest) / (1 + ratio * rest)
    sigma = torch.maximum(1 / (1 + ratio), mean.nan_to_num(-torch.inf))
    for _ in range(12):
        share = 1 / (sigma + distance)
        total = (weight * share).sum(1, keepdim=True)
        slope = (weight * share.square()).sum(1, keepdim=True) + ratio * total.square()
        sigma = sigma + total * ((1 - ratio * sigma) * total - 1) / slope
    entries = weight / (sigma + distance)
    direction = (entries / entries.sum(1, keepdim=True)).scatter(1, k, -1.0)
    curvature = ratio / (1 + ratio * rest) * (1 + gap * sigma)
    nothing = a_k - a_k  # NaN where the pivot is not finite
    direction = torch.where(alone, 0.0, direction) + nothing
    curvature = (torch.where(alone, 0.0, curvature) + nothing).squeeze(1)
    # What is NaN beside a finite pivot makes the whole row NaN.
    direction = direction + 0.0 * curvature.unsqueeze(1)
    return direction.to(logits.dtype), curvature.to(accumulate)


@overload
def perturb(
    x: Tensor, direction: Tensor, radius: float, *, return_norm: Literal[False] = False
) -> Tensor: ...
@overload
def perturb(
    x: Tensor, direction: Tensor, radius: float, *, return_norm: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def perturb(
    x: Tensor, direction: Tensor, radius: float, *, return_norm: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """See :func:`vaal_ext.ops.perturb`."""
    flat = direction.reshape(x.shape[0], -1).double() if x.numel() else x.double().flatten(1)
    peak = flat.abs().amax(dim=1, keepdim=True) if flat.numel() else flat.new_zeros(len(x), 1)
    unit = flat / torch.where(peak == 0, torch.ones_like(peak), peak)
    length = torch.linalg.vector_norm(unit, dim=1, keepdim=True)
    step = radius * (unit / torch.where(length == 0, torch.ones_like(length), length))
    out = (x.double() + step.view_as(x)).to(x.dtype)
    if return_norm:
        return out, (peak * length).squeeze(1).to(torch.promote_types(x.dtype, torch.float32))
    return out


def _mul_hi_lo(a: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * constant, both unsigned 32-bit numbers held in int64."""
    low16, high16 = a & 0xFFFF, a >> 16
    low = low16 * constant
    mid = high16 * constant + (low >> 16)
    return mid >> 16, ((mid & 0xFFFF) << 16) | (low & 0xFFFF)


def philox4x32(counter: Sequence[Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al. 2011): four uint32 counters and two uint32 keys, as int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        hi0, lo0 = _mul_hi_lo(c0, 0xD2511F53)
        hi1, lo1 = _mul_hi_lo(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def random_normal(num_elements: int, *, seed: int, sample_index: Tensor) -> Tensor:
    """The standard normals behind :func:`random_perturb`: float64 [B, num_elements].

    Element e of sample i is drawn from Philox4x32-10 with counter (e // 4, i) and key seed; its
    four words give two Box-Muller pairs. A word w becomes the uniform ((w >> 9) + 0.5) / 2^23,
    which float32 holds exactly, so every device and dtype starts from the same numbers.
    """
    device = sample_index.device
    block = torch.arange((num_elements + 3) // 4, device=device).unsqueeze(0)
    index = sample_index.to(torch.int64).unsqueeze(1)
    mask = 0xFFFFFFFF
    counter = torch.broadcast_tensors(
        block & mask, (block >> 32) & mask, index & mask, (index >> 32) & mask
    )
    key = (seed & mask, (seed >> 32) & mask)
    uniform = [((w >> 9).double() + 0.5) * 2.0**-23 for w in philox4x32(counter, key)]
    normals = []
    for radial, angle in (uniform[:2], uniform[2:]):
        length = torch.sqrt(-2.0 * torch.log(radial))
        normals += [
            length * torch.cos(2 * math.pi * angle),
            length * torch.sin(2 * math.pi * angle),
        ]
    return torch.stack(normals, dim=2).flatten(1)[:, :num_elements]


def random_perturb(x: Tensor, radius: float, *, seed: int, sample_index: Tensor) -> Tensor:
    """See :func:`vaal_ext.ops.random_perturb`."""
    per_sample = math.prod(x.shape[1:])
    noise = random_normal(per_sample, seed=seed, sample_index=sample_index.to(x.device))
    return perturb(x, noise.view(x.shape).to(torch.promote_types(x.dtype, torch.float32)), radius)


def posterior_summary(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`vaal_ext.ops.posterior_summary`."""
    a = _compute(logits)
    label = a.argmax(dim=1)
    k = label.unsqueeze(1)
    alpha = a - a.gather(1, k)
    weight = alpha.exp()
    rest = weight.scatter(1, k, 0.0)
    remainder = rest.sum(1) + 0.0 * a.gather(1, k).squeeze(1)  # NaN where a_k is not finite
    z = 1.0 + remainder
    entropy = torch.log1p(remainder) - _times(rest, alpha).sum(1) / z
    runner_up = alpha.scatter(1, k, -torch.inf).amax(1)
    return label, entropy, -torch.expm1(runner_up) / z


def deepfool_step(
    logits: Tensor, gradients: Tensor, reference: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`vaal_ext.ops.deepfool_step`. Computed in float64 and rounded once."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    flat = gradients.flatten(2).double() if gradients.ndim > 2 else gradients.double().unsqueeze(2)
    classes = logits.shape[1]
    outside = (candidates < 0) | (candidates >= classes)
    outside |= ((reference < 0) | (reference >= classes)).unsqueeze(1)
    own = candidates == reference.unsqueeze(1)
    f = logits.double()
    gap = f.gather(1, candidates.clamp(0, classes - 1))
    gap = gap - f.gather(1, reference.clamp(0, classes - 1).unsqueeze(1))
    peak = flat.abs().amax(dim=2)
    unit = flat / torch.where(peak == 0, torch.ones_like(peak), peak).unsqueeze(2)
    length = torch.linalg.vector_norm(unit, dim=2)
    finite = torch.isfinite(gap) & torch.isfinite(peak)
    failed = (~own & (outside | (~finite & (gap != -torch.inf)))).any(dim=1)
    distance = (gap.abs() / length) / peak
    distance = torch.where(gap == 0, torch.zeros_like(distance), distance)
    too_far = ~(distance <= torch.finfo(dtype).max)
    distance = distance.masked_fill(own | (gap == -torch.inf) | too_far, torch.inf)
    value, slot = distance.min(dim=1)
    slot = (distance == value.unsqueeze(1)).int().argmax(dim=1)  # the first of several
    pick = slot.unsqueeze(1)
    chosen = (unit / length.unsqueeze(2)).gather(1, pick.unsqueeze(2).expand(-1, 1, flat.shape[2]))
    moves = (torch.isfinite(value) & (value > 0)).unsqueeze(1)
    step = torch.where(moves, chosen.squeeze(1) * value.unsqueeze(1), torch.zeros_like(flat[:, 0]))
    step = step.masked_fill(failed.unsqueeze(1), torch.nan)
    nearest = torch.where(torch.isfinite(value) & ~failed, candidates.gather(1, pick)[:, 0], -1)
    value = value.masked_fill(failed, torch.nan)
    step = step.view(gradients[:, 0].shape).to(gradients.dtype)
    return nearest, value.to(dtype), step
