"""The divergence as a textbook writes it, in plain autograd."""

import torch


def textbook_divergence(a, b, smoothing, divergence):
    """Of the softmax of both logits [B, C], mixed with the uniform distribution: [B]."""
    p, q = (torch.softmax(logits, 1) for logits in (a, b))
    p, q = ((1 - smoothing) * d + smoothing / d.shape[1] for d in (p, q))
    return ((p - q if divergence == "symmetric" else p) * (p.log() - q.log())).sum(1)
