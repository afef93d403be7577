"""What the adapters' tests share: a small network, a pool for it, and what they should choose."""

import numpy as np
import torch
from rounding import scores_apart
from torch import nn

import vaal_ext
from vaal_ext.strategies.query import Query

# The search whose seed and steps tell whether all settings have arrived.
SEARCH = {"method": "finite-difference", "xi": 0.05, "eps": 0.5, "num_iters": 2}
SETTINGS = {**SEARCH, "percentile": 60.0, "order": "descending"}


class Network(nn.Module):
    """Four features to three logits; the same weights whenever it is made."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x):
        return self.layers(x)


def samples(n=60):
    """float32 [n, 4]"""
    return np.random.default_rng(5).normal(size=(n, 4)).astype(np.float32)


def expected_scores(network, pool, sample_index, *, seed, **scorer):
    """The scores of the pool [N, ...] with the settings above."""
    scorer = vaal_ext.LDRScorer(network, seed=seed, **SEARCH, **scorer)
    return scorer.score(pool, sample_index=sample_index, progress=False)


def allowed(scores, *, seed):
    """The share by which each LDR of :func:`samples` may differ in other batches, [n]."""
    x, ldr = torch.from_numpy(samples(len(scores.ldr))), torch.from_numpy(scores.ldr)
    index = torch.from_numpy(scores.index)
    layers = Network().layers
    return scores_apart(layers, x, ldr, **SEARCH, seed=seed, sample_index=index).numpy()


def expected_choice(scores, n):
    """pool_index int64 [n]"""
    settings = {name: SETTINGS[name] for name in ("percentile", "order")}
    return vaal_ext.select(
        scores.ldr, scores.pseudo_label, n, num_classes=scores.num_classes, **settings
    )


def asked_for(monkeypatch):
    """A list of the n for which pools are scored from now on; None stands for all samples."""
    asked, scores = [], Query.scores

    def noted(query, scorer, pool, n, **how):
        asked.append(n)
        return scores(query, scorer, pool, n, **how)

    monkeypatch.setattr(Query, "scores", noted)
    return asked
