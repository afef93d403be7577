"""A step of given length in a random direction, and the random numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .perturb import perturb

__all__ = ["philox4x32", "random_normal", "random_perturb"]


def _mul_hi_lo(a: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * constant, both unsigned 32-bit numbers held in int64."""
    low16, high16 = a & 0xFFFF, a >> 16
    low = low16 * constant
    mid = high16 * constant + (low >> 16)
    return mid >> 16, ((mid & 0xFFFF) << 16) | (low & 0xFFFF)


def philox4x32(counter: Sequence[Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al. 2011).

    Four uint32 counters of any shape and two uint32 keys, both held in int64.
    """
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
