"""The divergence between two posteriors, per row, and its gradients by both logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaal_ext.checks import require_divergence

from ._parts import times, widened


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
    a, b = widened(p_logits), widened(q_logits)
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


def _softmax_pullback(p: Tensor, h: Tensor) -> Tensor:
    """p (h - sum p h). On a saturated row one class is almost the whole sum: h is measured from
    there, so that nothing cancels."""
    largest = h.gather(1, p.argmax(dim=1, keepdim=True))
    weighted = times(p, h - largest.masked_fill(largest.isinf(), 0.0))
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
    """Value [B] and gradients [B, C] with both posteriors mixed with the uniform distribution.

    The formulas are in csrc/math/smoothed_kl.h.
    """
    a, b = widened(p_logits), widened(q_logits)
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
        weighted = times(share, h)
        return keep * (weighted - share * weighted.sum(1, keepdim=True))

    sides = (a, p, ps), (b, q, qs)
    grad_p = gradient(sides[0], sides[1], "log linear" if symmetric else "log")
    grad_q = gradient(sides[1], sides[0], "log linear" if symmetric else "linear")
    return value.sum(1), grad_p, grad_q


def forward_backward(
    p_logits: Tensor, q_logits: Tensor, smoothing: float, divergence: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Value [B] and the gradients [B, C] with respect to both logits."""
    require_divergence(divergence, smoothing)
    p, q, diff, u, delta = _pivot(p_logits, q_logits)
    if smoothing:
        return _smoothed(p_logits, q_logits, p, q, diff, smoothing, divergence)
    if divergence == "symmetric":
        value = times(diff, u).sum(1)
        grad_q = _softmax_pullback(q, delta) + diff
        grad_p = -_softmax_pullback(p, delta) - diff
    else:
        value = torch.where(u.abs() < 0.5, p * _phi(u), diff - times(p, u)).sum(1)
        grad_q = diff
        grad_p = -_softmax_pullback(p, delta)  # -p (u + KL), KL = -sum p u
    return value, grad_p, grad_q
