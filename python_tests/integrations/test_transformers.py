"""LDR of texts with a transformers classifier, built from a configuration."""

import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import transformers

from vaal_ext import LDRScorer
from vaal_ext.integrations.transformers import TokenEmbeddings

SETTINGS = {"eps": 0.2, "num_iters": 2, "seed": 2}
BERT = {
    "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32,
}  # fmt: skip
GPT2 = {"n_layer": 1, "n_head": 2, "n_embd": 16}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
COMMON = {"vocab_size": 30, "num_labels": 3, "pad_token_id": 1}


def classifier(name="Bert", **settings):
    config = getattr(transformers, f"{name}Config")(**COMMON, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(transformers, f"{name}ForSequenceClassification")(config)
        for parameter in network.parameters():  # or the logits hardly differ from text to text
            parameter.data.mul_(5)
    return network.double()


def tokens(n=12, length=6):
    """int64 [n, 2, length]: texts of 2 to `length` tokens and their attention masks."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 30, (n, length), generator=generator)
    there = torch.arange(length) < torch.randint(2, length + 1, (n, 1), generator=generator)
    return torch.stack([ids.where(there, 1), there.long()], dim=1)


def score(network, pool):
    texts = TokenEmbeddings(network)
    return LDRScorer(texts, encode=texts.encode, **SETTINGS).score(pool, progress=False)


# RoBERTa counts positions from the padding id, GPT-2 takes its logits at the last token.
@pytest.mark.parametrize(("name", "size"), [("Bert", BERT), ("Roberta", BERT), ("GPT2", GPT2)])
def test_the_network_is_called_as_always(name, size):
    network, pool = classifier(name, **size).eval(), tokens()
    texts = TokenEmbeddings(network)
    with torch.no_grad():
        expected = network(input_ids=pool[:, 0], attention_mask=pool[:, 1]).logits
        assert torch.equal(texts(*texts.encode(pool)), expected)
    scores = score(network, pool)
    assert np.array_equal(scores.pseudo_label, expected.argmax(1))
    assert (scores.ldr > 0).all()
    assert not network.get_input_embeddings()._forward_hooks


def test_padding_to_the_right_changes_nothing():
    network, pool = classifier(**BERT).train(), tokens()
    padding = torch.tensor([1, 0]).view(1, 2, 1).expand(12, 2, 4)
    scores = [score(network, x) for x in (pool, torch.cat([pool, padding], dim=2))]
    # float64 throughout, stored as float32
    np.testing.assert_allclose(scores[0].ldr, scores[1].ldr, rtol=1.2e-7)
    assert network.training
    assert network.dropout.training


def test_a_radius_moves_the_real_embeddings_alone():
    network, pool, seen = classifier(**BERT), tokens(), []
    texts = TokenEmbeddings(network)

    class Spy(torch.nn.Module):
        def forward(self, embeddings, mask, ids):
            seen.append(embeddings.detach().clone())
            return texts(embeddings, mask, ids)

    LDRScorer(Spy(), encode=texts.encode, **SETTINGS).score(pool, progress=False)
    step, mask = seen[-1] - seen[0], pool[:, 1] != 0
    assert (step[~mask] == 0).all()
    expected = torch.full((12,), SETTINGS["eps"], dtype=torch.float64)
    # x + eps*u and back: 1e-16 of embeddings of about 1, next to 0.2
    torch.testing.assert_close(step.flatten(1).norm(dim=1), expected, rtol=1e-12, atol=0)


def pairs(n=12):
    """int64 [n, 3, 9]: pairs "a a a 2 b b b 2" of different lengths, masks, and segments."""
    draw, place = torch.Generator().manual_seed(2), torch.arange(9)
    ends = torch.randint(2, 5, (n, 1), generator=draw), torch.randint(6, 9, (n, 1), generator=draw)
    ids, there = torch.randint(3, 30, (n, 9), generator=draw), place <= ends[1]
    ids = ids.masked_fill((place == ends[0]) | (place == ends[1]), 2).where(there, 1)
    return torch.stack([ids, there.long(), (there & (place > ends[0])).long()], dim=1)


def test_a_pair_of_texts_keeps_its_segments():
    network, pool = classifier(**BERT).eval(), pairs()
    with torch.no_grad():
        ids, mask, segments = pool.unbind(1)
        expected = network(ids, attention_mask=mask, token_type_ids=segments).logits
        texts = TokenEmbeddings(network)
        assert torch.equal(texts(*texts.encode(pool)), expected)
        without = network(input_ids=pool[:, 0], attention_mask=pool[:, 1]).logits
    assert not torch.allclose(expected, without)  # or this test would show nothing
    assert np.array_equal(score(network, pool).pseudo_label, expected.argmax(1))


def test_pairs_without_segments_are_noticed():
    with pytest.warns(UserWarning, match="12 of 12 texts look like pairs.*token_type_ids"):
        score(classifier(**BERT), pairs()[:, :2])
    # RoBERTa has no segments to lose, and in single texts the separator comes once.
    single = tokens()
    single[torch.arange(12), 0, single[:, 1].sum(1) - 1] = 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(classifier("Roberta", **BERT, type_vocab_size=1), pairs()[:, :2])
        score(classifier(**BERT), single)
        score(classifier(**BERT), tokens())


def test_what_cannot_be_perturbed_is_refused():
    with pytest.raises(TypeError, match="PreTrainedModel, got Linear"):
        TokenEmbeddings(torch.nn.Linear(2, 2))
    network, pool = classifier(**BERT), tokens()
    with pytest.raises(TypeError, match="must be int64"):
        score(network, pool.float())
    with pytest.raises(ValueError, match=r"\[B, 2, T\].*got shape \[12, 6\]"):
        score(network, pool[:, 0])
    shared = classifier("T5", **T5, eos_token_id=2, decoder_start_token_id=1)
    pool[torch.arange(12), 0, pool[:, 1].sum(1) - 1] = 2  # every text ends once
    pool[:, 0, 0] = 5
    with pytest.raises(ValueError, match=r"used its input embeddings \d times"):
        score(shared, pool)
