"""The query strategy for small-text."""

import numpy as np
import pytest
import torch
from small_pool import SETTINGS, asked_for, expected_choice, expected_scores

pytest.importorskip("small_text")
pytest.importorskip("transformers")

import small_text
import transformers

from vaal_ext.integrations.small_text import LDRSampling
from vaal_ext.integrations.transformers import TokenEmbeddings

TEXTS = 40


def classifier(num_labels=2, multi_label=False):
    """small-text's, trained, less the loading of a pretrained model from disk."""
    size = {
        "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16,
    }  # fmt: skip
    clf = small_text.TransformerBasedClassification(
        small_text.TransformerModelArguments("none"), num_labels, multi_label, device="cpu"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.BertConfig(num_labels=num_labels, **size)
        clf.model = transformers.BertForSequenceClassification(config)
        for parameter in clf.model.parameters():  # or the logits hardly differ from text to text
            parameter.data.mul_(5)
    return clf


def dataset():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 20, (TEXTS, 1, 5), generator=generator)
    ids[::3, :, 3:] = 0
    data = [(text, (text != 0).long(), 0) for text in ids]
    return small_text.TransformersDataset(data, target_labels=np.arange(2))


class Factory:
    """Gives the learner the classifier that is there, and leaves it as it is."""

    def new(self):
        clf = classifier()
        clf.fit = lambda *args, **kwargs: clf
        return clf


def test_the_choice_is_selects_on_the_same_scores():
    texts = dataset()
    learner = small_text.PoolBasedActiveLearner(Factory(), LDRSampling(**SETTINGS, seed=3), texts)
    labelled = np.arange(0, TEXTS, 5)
    learner.initialize_data(labelled, np.zeros(len(labelled), dtype=int))
    for _ in range(2):
        left = np.setdiff1d(np.arange(TEXTS), learner.indices_labeled)
        pool = torch.stack([torch.cat(texts.data[i][:2]) for i in left])
        network = TokenEmbeddings(classifier().model)
        scores = expected_scores(network, pool, left, seed=3, encode=network.encode)
        sample_index = learner.query(num_samples=6)
        assert np.array_equal(sample_index, left[expected_choice(scores, 6)])
        learner.update(np.zeros(6, dtype=int))


def test_the_pool_is_screened_for_the_query(monkeypatch):
    asked, none = asked_for(monkeypatch), np.array([])
    LDRSampling(**SETTINGS).query(classifier(), dataset(), np.arange(TEXTS), none, none, n=7)
    assert asked == [7]


def test_bad_input():
    texts, strategy, all_of_them = dataset(), LDRSampling(**SETTINGS), np.arange(TEXTS)

    def query(clf, unlabelled=all_of_them, n=3):
        return strategy.query(clf, texts, unlabelled, np.array([]), np.array([]), n=n)

    with pytest.raises(small_text.EmptyPoolException):
        query(classifier(), all_of_them[:0])
    with pytest.raises(small_text.PoolExhaustedException):
        query(classifier(), n=TEXTS + 1)
    with pytest.raises(TypeError, match="TransformerBasedClassification, got object"):
        query(object())
    with pytest.raises(ValueError, match="for single labels"):
        query(classifier(multi_label=True))
    untrained = classifier()
    untrained.model = None
    with pytest.raises(ValueError, match="not trained"):
        query(untrained)
    with pytest.raises(ValueError, match="eps"):
        LDRSampling(**(SETTINGS | {"eps": -1}))
