"""x + r of a batch by a search with these settings, for tests of what follows from it."""

import torch

from vaal_ext.perturbation.ldr import find
from vaal_ext.perturbation.search import SearchSettings, Starts


def perturbed(model, x, index=None, *, seed=0, **settings):
    """Like x [B, ...]; `index` int64 [B] keys the random starts, by default arange(B)."""
    search = SearchSettings(**settings)
    starts = Starts(seed, torch.arange(len(x)) if index is None else index)
    with torch.no_grad():
        return find(search.method)(search, model, x, starts).moved
