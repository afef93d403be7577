"""The divergence and its gradients with as many digits as mpmath is set to."""

from __future__ import annotations

import mpmath
import torch


def value_and_gradients(module, a, b, **how):
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    value = module.symmetric_kl(a, b, **how)
    return (value.detach(), *torch.autograd.grad(value.sum(), (a, b)))


def digits(row):
    """The numbers of a row of a tensor, as they are, for mpmath to go on with."""
    return [mpmath.mpf(x) for x in row.reshape(-1).tolist()]


def error_and_size(row, expected):
    """The norms of what a row of a tensor is off by and of what it should be."""
    missed = [x - y for x, y in zip(digits(row), expected, strict=True)]
    return mpmath.norm(missed), mpmath.norm(expected)


def exact(a, b, smoothing, divergence):
    """The divergence and both gradients of one row, with mpmath's digits, from the definition.

    Of 1/3 and of 1e-60 each what they differ by must remain: a row that is saturated by a gap of g
    costs 2g/ln 10 digits.
    """
    p, q = ([mpmath.exp(x - max(row)) for x in row] for row in (a, b))
    p, q = ([x / mpmath.fsum(row) for x in row] for row in (p, q))
    mixed = [[(1 - smoothing) * x + smoothing / len(row) for x in row] for row in (p, q)]
    value, slopes = mpmath.mpf(0), []
    for x, y in zip(*mixed, strict=True):
        ratio = mpmath.log(y) - mpmath.log(x)
        if divergence == "symmetric":
            value += (y - x) * ratio
            slopes.append((-ratio - (y - x) / x, ratio + (y - x) / y))
        else:
            value -= x * ratio
            slopes.append((-ratio + 1, -x / y))
    gradients = []
    for posterior, slope in zip((p, q), zip(*slopes, strict=True), strict=True):
        mean = mpmath.fsum(x * h for x, h in zip(posterior, slope, strict=True))
        gradients.append(
            [(1 - smoothing) * x * (h - mean) for x, h in zip(posterior, slope, strict=True)]
        )
    return [[value], *gradients]
