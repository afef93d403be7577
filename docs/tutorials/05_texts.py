"""
Texts, at their token embeddings
================================

Token ids are whole numbers, and a small change of one means nothing. So texts are perturbed where
the network has made vectors of them: at the token embeddings. The classifier here is a tiny one
that is made on the spot, so that nothing is downloaded; yours comes from ``from_pretrained``.
"""

# %%
# The task: "texts" of up to twelve tokens, in two classes by which of two groups of tokens is more
# frequent. ``input_ids`` and ``attention_mask`` are what a tokenizer gives with padding.
import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

import vaal_ext
from vaal_ext.integrations.transformers import TokenEmbeddings

torch.manual_seed(0)
count, length = 1200, 12
attention_mask = (torch.arange(length) < torch.randint(5, length + 1, (count, 1))).long()
input_ids = torch.randint(1, 40, (count, length)) * attention_mask
group = (input_ids > 20).long() - ((input_ids >= 1) & (input_ids <= 20)).long()
y = (group.sum(1) > 0).long()
pool = torch.stack([input_ids, attention_mask], dim=1)
pool_x, pool_y, test_x, test_y = pool[:800], y[:800], pool[800:], y[800:]


# %%
# A BERT of one layer, trained for a moment on the labels there are.
def train(labelled, seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=2,
    )
    model = BertForSequenceClassification(config)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        ids, mask = pool_x[labelled].unbind(1)
        model(input_ids=ids, attention_mask=mask, labels=pool_y[labelled]).loss.backward()
        optimiser.step()
    return model.eval()


def accuracy(model):
    with torch.no_grad():
        ids, mask = test_x.unbind(1)
        return (
            (model(input_ids=ids, attention_mask=mask).logits.argmax(1) == test_y)
            .double()
            .mean()
            .item()
        )


# %%
# ``TokenEmbeddings`` makes the classifier a function of its embeddings. ``eps`` is a length there,
# so it is measured there: a fiftieth of the length of a text's embeddings, with the padding left
# out.
def score(model, left):
    texts = TokenEmbeddings(model)
    with torch.no_grad():
        embedded, mask = texts.encode(pool_x[left][:200])[:2]
        eps = (
            0.02 * (embedded * mask[..., None]).flatten(1).norm(dim=1).square().mean().sqrt().item()
        )
    scorer = vaal_ext.LDRScorer(texts, encode=texts.encode, eps=eps)
    return eps, scorer.score(pool_x[left], sample_index=torch.from_numpy(left), progress=False)


# %%
# Four queries of 20 texts.
labelled, curve = np.arange(40), []
for _ in range(5):
    model = train(labelled)
    curve.append((len(labelled), 100 * accuracy(model)))
    left = np.setdiff1d(np.arange(len(pool_x)), labelled)
    eps, scores = score(model, left)
    print(f"{len(labelled)} labels: {curve[-1][1]:.1f} % right, eps {eps:.3f}, {scores}")
    labelled = np.append(
        labelled, left[vaal_ext.select(scores.ldr, scores.pseudo_label, n=20, num_classes=2)]
    )

figure, panels = plt.subplots(1, 2, figsize=(9, 3.4))
figure.suptitle("A text classifier: accuracy by labels, and LDR against the balance of the tokens")
panels[0].plot(*zip(*curve, strict=True), marker="o")
panels[0].set(xlabel="labels", ylabel="test accuracy [%]", title="One seed")
balance = group.sum(1).numpy()[left] + np.random.default_rng(0).uniform(-0.3, 0.3, len(left))
panels[1].scatter(balance, scores.ldr, s=5)
panels[1].set(
    yscale="log",
    xlabel="tokens of one group less the other",
    ylabel="LDR [nats]",
    title="The last pool",
)
figure.tight_layout()

# %%
# The two classes meet where the tokens are in balance. Far from there hardly a text is rough.
