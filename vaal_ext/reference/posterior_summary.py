"""The most probable class, the entropy and the margin, per row."""

from __future__ import annotations

import torch
from torch import Tensor

from ._parts import times, widened

__all__ = ["posterior_summary"]


def posterior_summary(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`vaal_ext.ops.posterior_summary`."""
    a = widened(logits)
    label = a.argmax(dim=1)
    k = label.unsqueeze(1)
    alpha = a - a.gather(1, k)
    weight = alpha.exp()
    rest = weight.scatter(1, k, 0.0)
    remainder = rest.sum(1) + 0.0 * a.gather(1, k).squeeze(1)  # NaN where a_k is not finite
    z = 1.0 + remainder
    entropy = torch.log1p(remainder) - times(rest, alpha).sum(1) / z
    runner_up = alpha.scatter(1, k, -torch.inf).amax(1)
    return label, entropy, -torch.expm1(runner_up) / z
