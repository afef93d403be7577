"""A scorer says where another random start would rank the samples of a pool otherwise."""

import random
import warnings

import numpy as np
import pytest
import torch
from small_network import one_sided
from test_first_batch import network, normal
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler, TensorDataset

from vaal_ext.pool import first_batch
from vaal_ext.pool.trials import rank_correlation
from vaal_ext.scorer import LDRScorer

STEP = {"method": "finite-difference", "xi": 0.1, "eps": 0.5, "num_iters": 2}
NOISE = "mostly noise"


def score(model, x, **settings):
    return LDRScorer(model, **(STEP | settings)).score(x, progress=False)


def warned(work):
    """The texts of the warnings, all of which must name this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    assert {warning.filename for warning in caught} <= {__file__}
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("batch_size", [7, 200])
def test_noise_is_told_and_what_helps(batch_size):
    x = 0.3 * normal(200)
    with pytest.warns(RuntimeWarning, match=NOISE) as caught:
        first = score(one_sided, x, eps=1.0, batch_size=batch_size)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "sign='max'" in text
    assert "method='direct'" in text
    assert "num_iters=8" in text
    with pytest.warns(RuntimeWarning, match=NOISE):
        second = score(one_sided, x, eps=1.0, seed=1)
    # What the warning says is so, and what it advises helps.
    assert rank_correlation(first.ldr, second.ldr) < 0.7
    steady = [score(one_sided, x, eps=1.0, seed=seed, sign="max").ldr for seed in (0, 1)]
    assert rank_correlation(*steady) > 0.99
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(one_sided, x, eps=1.0, sign="max")
        score(one_sided, x[:63], eps=1.0)  # too few to tell
        score(network(), normal(200), eps=0.05, num_iters=5)


def sorted_pool():
    """Its second class alone is noise: what comes first tells nothing."""
    x = 0.3 * normal(400)
    x[:, 5] = (torch.arange(400) >= 200).float()
    return x


def noise_in_the_second_class(x):
    return torch.where(x[:, 5:] > 0.5, one_sided(x), 3 * x[:, :2])


class Drawing(Dataset):
    """Draws from every random state when it is read, as augmentations do."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, position):
        drawn = random.random() + np.random.rand() + torch.rand(()).item()
        return self.x[position] * (1 + 1e-3 * drawn)


POOLS = {
    "tensor": lambda x: x,
    "array": lambda x: x.numpy(),
    "dataset": TensorDataset,
    "random dataset": Drawing,
    "loader": lambda x: DataLoader(TensorDataset(x), batch_size=50),
    "workers": lambda x: DataLoader(TensorDataset(x), batch_size=50, num_workers=2),
    "shuffled": lambda x: DataLoader(
        TensorDataset(x), batch_size=50, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
}


@pytest.mark.parametrize("kind", POOLS)
def test_noise_is_looked_for_all_over_the_pool(kind, monkeypatch):
    x = sorted_pool()

    def run():
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        pool, found = POOLS[kind](x), []
        texts = warned(lambda: found.append(score(noise_in_the_second_class, pool, eps=1.0)))
        states = [random.random(), np.random.rand(), torch.rand(()).item()]
        if getattr(pool, "generator", None) is not None:
            states.append(torch.rand((), generator=pool.generator).item())
        return texts, found[0].ldr, states

    texts, ldr, states = run()
    assert [NOISE in text for text in texts] == [True]
    monkeypatch.setattr(first_batch, "look_at_network", lambda *_: None)
    without, ldr_without, states_without = run()
    assert without == []
    assert np.array_equal(ldr, ldr_without)
    assert states == states_without


def test_where_samples_cannot_be_read_apart_the_first_ones_tell():
    x = 0.3 * normal(200)
    some = SubsetRandomSampler(range(100), torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x), batch_size=50, sampler=some)

    class InOrder(Dataset):
        """Fails wherever it is not read from one sample to the next."""

        last = -1

        def __len__(self):
            return len(x)

        def __getitem__(self, position):
            if position != self.last + 1:
                raise OSError("this is a stream")
            self.last = position
            return x[position]

    for pool, count in ((loader, 100), (InOrder(), 200)):
        found = []
        texts = warned(lambda: found.append(score(one_sided, pool, eps=1.0)))  # noqa: B023
        assert [NOISE in text for text in texts] == [True]
        assert found[0].num_samples == count


def test_the_network_is_looked_at_once_in_a_scorers_life():
    scorer, x = LDRScorer(one_sided, method="finite-difference", xi=0.1, eps=1.0), 0.3 * normal(100)
    assert len(warned(lambda: scorer.score(x, progress=False))) == 1
    assert warned(lambda: scorer.score(x, progress=False)) == []
