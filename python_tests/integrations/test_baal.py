"""The active-learning loop for baal."""

import numpy as np
import pytest
import torch
from screened_pool import EPS, telling
from screened_pool import Network as Screened
from small_pool import SETTINGS, Network, asked_for, expected_choice, expected_scores, samples
from torch.utils.data import Subset, TensorDataset

pytest.importorskip("baal")

from baal.active import ActiveLearningDataset
from baal.modelwrapper import ModelWrapper, TrainingArgs

from vaal_ext.integrations.baal import LDRLoop

pytestmark = pytest.mark.filterwarnings("ignore:getName:DeprecationWarning")  # baal's logger


def data(n=60):
    dataset = TensorDataset(torch.from_numpy(samples(n)), torch.zeros(n, dtype=torch.int64))
    labelled = np.arange(n) % 4 == 0
    return ActiveLearningDataset(dataset, labelled=labelled)


def test_a_step_labels_what_select_chooses():
    dataset, network = data(), Network().train()
    loop = LDRLoop(dataset, network, query_size=7, **SETTINGS, seed=8)
    for _ in range(2):
        before = dataset.labelled.copy()
        left = np.flatnonzero(~before)
        scores = expected_scores(Network(), samples()[left], left, seed=8)
        assert loop.step()
        newly = np.flatnonzero(dataset.labelled & ~before)
        assert np.array_equal(newly, np.sort(left[expected_choice(scores, 7)]))
        assert network.training


def test_the_chosen_come_first_and_in_their_order():
    dataset = data()
    loop = LDRLoop(dataset, Network(), query_size=7, **SETTINGS, seed=8)
    left = np.flatnonzero(~dataset.labelled)
    scores = expected_scores(Network(), samples()[left], left, seed=8)
    priorities = loop.priorities(dataset.pool)
    ranks, _ = loop.heuristic.get_ranks(priorities.copy())
    chosen = expected_choice(scores, 7)
    assert np.array_equal(ranks[:7], chosen)
    others = np.delete(np.arange(len(left)), chosen)
    assert np.array_equal(others[np.argsort(-scores.ldr[others])], ranks[7:])


def test_part_of_the_pool_keeps_its_start_directions():
    dataset = data()
    loop = LDRLoop(dataset, Network(), query_size=4, max_sample=20, **SETTINGS, seed=8)
    left = np.flatnonzero(~dataset.labelled)
    np.random.seed(0)
    part = left[np.random.choice(len(left), 20, replace=False)]
    scores = expected_scores(Network(), samples()[part], part, seed=8)
    expected = np.sort(part[expected_choice(scores, 4)])
    before = dataset.labelled.copy()
    np.random.seed(0)
    assert loop.step()
    assert np.array_equal(np.flatnonzero(dataset.labelled & ~before), expected)


def test_the_pool_is_screened_unless_its_ranks_are_kept(monkeypatch, tmp_path):
    asked = asked_for(monkeypatch)
    for folder in (None, str(tmp_path)):
        loop = LDRLoop(data(), Network(), query_size=7, uncertainty_folder=folder, **SETTINGS)
        loop.priorities(loop.dataset.pool)
    assert asked == [7, None]


def test_what_the_screen_leaves_out_comes_last():
    x = telling()
    dataset = ActiveLearningDataset(TensorDataset(x), labelled=np.zeros(len(x), dtype=bool))
    found = {}
    for folder in (None, "kept"):
        loop = LDRLoop(
            dataset, Screened(), query_size=100, uncertainty_folder=folder, eps=EPS, seed=4
        )
        found[folder] = loop.priorities(dataset.pool)
    screened, whole = found.values()
    assert np.array_equal(np.argsort(-screened)[:100], np.argsort(-whole)[:100])
    assert (screened[screened <= 0.9] == 0.9).sum() == 5400
    above = whole > 0.9
    assert np.array_equal(screened[above], whole[above])


def test_a_model_wrapper_stands_for_its_model():
    wrapper = ModelWrapper(Network(), TrainingArgs())
    dataset = data()
    loops = [LDRLoop(dataset, m, query_size=7, **SETTINGS) for m in (wrapper, Network())]
    wrapped, bare = (loop.priorities(dataset.pool) for loop in loops)
    assert np.array_equal(wrapped, bare)


def test_the_last_of_the_pool_and_none():
    dataset = data()
    loop = LDRLoop(dataset, Network(), query_size=40, **SETTINGS)
    assert loop.step()
    assert loop.step()
    assert dataset.labelled.all()
    assert not loop.step()


def test_bad_input():
    dataset = data()
    with pytest.raises(ValueError, match="percentile"):
        LDRLoop(dataset, Network(), **(SETTINGS | {"percentile": 100}))
    loop = LDRLoop(dataset, Network(), **SETTINGS)
    with pytest.raises(ValueError, match=r"dataset.pool \(45 samples\) .* got 60"):
        loop.priorities(TensorDataset(torch.from_numpy(samples())))
    assert len(loop.priorities(Subset(dataset.pool, [3, 1, 2]))) == 3
