"""A network whose curvature and gain can be set sample by sample, and pools for it.

What it computes for a sample does not depend on the batch, to the bit.
"""

import torch
from torch import nn

EPS = 0.1


class Network(nn.Module):
    """Of a sample (z, 0, slope, label) the logits are z at the label and 0 at the other two: z is
    how sure the network is, and its gradient (1, slope). `samples` counts what went through, and
    `searched` what of it was to be differentiated."""

    def __init__(self):
        super().__init__()
        self.samples = self.searched = 0

    def forward(self, x):
        self.samples += len(x)
        self.searched += len(x) if x.requires_grad else 0
        z = x[:, 0] + x[:, 1] * x[:, 2]
        label = x[:, 3].detach().nan_to_num().round().long()
        return z[:, None] * nn.functional.one_hot(label, 3)


def samples(sure, slope):
    """float64 [N, 4] with labels at random."""
    label = torch.randint(3, (len(sure),), generator=torch.Generator().manual_seed(2))
    return torch.stack([sure, torch.zeros_like(sure), slope, label.double()], dim=1)


def telling(n=6000):
    """A pool in which LDR goes with the curvature: that spans five orders of magnitude, and the
    gain one."""
    draw = torch.Generator().manual_seed(1)
    sure, slope = torch.rand(2, n, generator=draw, dtype=torch.float64)
    return samples(0.1 + 12 * sure, 3 * slope)


def deceiving(n=6000):
    """Every tenth sample is as good as certain and falls off a cliff: the largest LDR of the pool
    are where the curvature is least."""
    x = telling(n)
    x[::10, 0], x[::10, 2] = 20.0, 1000.0
    return x
