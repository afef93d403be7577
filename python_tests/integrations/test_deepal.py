"""The strategy for the DeepAL family, which is no package: see examples/deepal_checkout.py."""

import numpy as np
import pytest
import torch
from deepal_checkout import Data, Net, Strategy
from small_pool import SETTINGS, Network, asked_for, expected_choice, expected_scores, samples

from vaal_ext.integrations.deepal import LDRSampling
from vaal_ext.integrations.query import LDRQuery


class Classifier(Network):
    def forward(self, x):
        return super().forward(x), x


class VaalSampling(LDRSampling, Strategy):
    ldr = LDRQuery(**SETTINGS, seed=6)


def strategy():
    data = Data(torch.from_numpy(samples()), torch.zeros(60), None, None)
    data.labeled_idxs[::3] = True
    return VaalSampling(data, Net(Classifier))


def test_query_gives_the_choice_of_select_as_indices_in_the_whole_set():
    asked = strategy()
    asked.net.clf = Classifier().train()
    for _ in range(2):
        left = np.flatnonzero(~asked.dataset.labeled_idxs)
        scores = expected_scores(Network(), samples()[left], left, seed=6)
        sample_index = asked.query(7)
        assert np.array_equal(sample_index, left[expected_choice(scores, 7)])
        assert asked.net.clf.training
        asked.update(sample_index)
    with pytest.raises(ValueError, match="at most the 26 samples"):
        asked.query(27)


def test_the_pool_is_screened_for_the_query(monkeypatch):
    asked, small = asked_for(monkeypatch), strategy()
    small.net.clf = Classifier()
    small.query(7)
    assert asked == [7]


def test_a_network_that_is_not_trained_yet():
    with pytest.raises(ValueError, match="call train"):
        strategy().query(3)
