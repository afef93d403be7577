"""A small smooth network and samples for it, the same whenever they are made."""

import torch
from torch import nn


def network(*behind, between=(), classes=4, dtype=torch.float64):
    """Six features to logits; modules `between` its layers (of 16 units) or `behind` them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(6, 16), *between, nn.Tanh(), nn.Linear(16, classes), *behind]
        return nn.Sequential(*layers).to(dtype)


def one_sided(x):
    """Steep towards one side and flat towards the other: which of them r takes is chance."""
    slope = nn.functional.softplus(8 * x[:, :1] + x[:, 1:2])
    return torch.cat([slope, torch.zeros_like(slope)], 1)


def normal(n, *shape, dtype=torch.float64, seed=1):
    """[n, *shape], or [n, 6] for the network; the same numbers in every dtype, but for rounding."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *(shape or (6,)), generator=generator, dtype=torch.float64)
    return x.to(dtype)
