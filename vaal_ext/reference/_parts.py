"""What several of the reference ops are made of."""

from __future__ import annotations

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def widened(x: Tensor) -> Tensor:
    """x in the dtype the arithmetic runs in: half types in float32, the others as they are."""
    return x.float() if x.dtype in _HALF else x


def times(weight: Tensor, x: Tensor) -> Tensor:
    """weight * x with 0 * inf = 0: a class of probability zero carries no weight."""
    return torch.where(weight == 0, torch.zeros_like(x), weight * x)
