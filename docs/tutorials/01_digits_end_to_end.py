"""
Digits, end to end
==================

A network learns scikit-learn's digits from few labels. After every training it is asked which
images it wants labelled next, once by LDR and once at random, and the pictures show what it asked
for.
"""

# %%
# The data are 1,797 images of 8 by 8 pixels. 1,200 are the pool, whose labels we pretend not to
# know; the rest is there to test on.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from tqdm import tqdm

import vaal_ext
from vaal_ext.models import MLP

x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
pool_x, pool_y, test_x, test_y = x[:1200], y[:1200], x[1200:], y[1200:]

# %%
# A perturbation should be short beside a sample. ``small_radius`` takes a fiftieth of the samples'
# length.
eps = vaal_ext.small_radius(pool_x)
print(f"eps = {eps:.3f}, in units of the pixels")


# %%
# One training: a fresh network, 150 steps of Adam on all the labels there are.
def train(labelled, seed):
    torch.manual_seed(seed)
    model = MLP(64, num_classes=10, hidden=128)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(pool_x[labelled]), pool_y[labelled])
        loss.backward()
        optimiser.step()
    return model.eval()


def accuracy(model):
    with torch.no_grad():
        return (model(test_x).argmax(1) == test_y).double().mean().item()


# %%
# The loop: train, score the samples without labels, select, label. ``sample_index`` tells the
# scorer who each sample is, and ``left[query]`` turns the positions that were chosen into
# positions in the pool.
def query_by_ldr(model, left, seed):
    scorer = vaal_ext.LDRScorer(model, eps=eps, seed=seed)
    scores = scorer.score(pool_x[left], sample_index=torch.from_numpy(left), progress=False)
    chosen = vaal_ext.select(scores.ldr, scores.pseudo_label, n=10, num_classes=10)
    return chosen, scores


def query_at_random(model, left, seed):
    return np.random.default_rng(seed).choice(len(left), size=10, replace=False), None


def learn(query, seed, rounds=8):
    labelled, curve = np.random.default_rng(seed).choice(1200, size=20, replace=False), []
    for step in range(rounds + 1):
        model = train(labelled, seed)
        curve.append((len(labelled), accuracy(model)))
        if step == rounds:
            return np.array(curve), model, labelled
        left = np.setdiff1d(np.arange(1200), labelled)
        chosen, _ = query(model, left, seed)
        labelled = np.append(labelled, left[chosen])


# %%
# Three seeds for each. A tutorial has no time for more, and three seeds say little: the page
# "Which strategy, when" has twenty of them, and strategies that are as good as LDR for less.
# The bars count the seeds.
figure, axes = plt.subplots(figsize=(7, 4))
for name, query, colour in (("LDR", query_by_ldr, "C3"), ("random", query_at_random, "C7")):
    curves = np.array([learn(query, seed)[0] for seed in tqdm(range(3), desc=name)])
    labels, values = curves[0, :, 0], 100 * curves[:, :, 1]
    axes.fill_between(labels, values.min(0), values.max(0), alpha=0.2, color=colour)
    axes.plot(labels, values.mean(0), marker="o", color=colour, label=name)
axes.set(
    xlabel="labels", ylabel="test accuracy [%]", title="Digits: accuracy against labels, 3 seeds"
)
axes.legend()
figure.tight_layout()

# %%
# What does a query look like? Here is the roughness of the pool after 20 labels. The dashed line
# is the 90th percentile; the query goes upward from there, class by class, so it does not take the
# very top.
labelled = np.random.default_rng(0).choice(1200, size=20, replace=False)
model = train(labelled, seed=0)
left = np.setdiff1d(np.arange(1200), labelled)
chosen, scores = query_by_ldr(model, left, seed=0)

figure, axes = plt.subplots(figsize=(7, 3.5))
bins = np.geomspace(max(scores.ldr.min(), 1e-8), scores.ldr.max(), 50)
axes.hist(scores.ldr, bins=bins, color="#B8C7D6", label="pool")
axes.hist(scores.ldr[chosen], bins=bins, color="#D55E00", label="queried")
axes.axvline(np.percentile(scores.ldr, 90), color="black", linestyle="--", label="percentile 90")
axes.set(xscale="log", xlabel="LDR [nats]", ylabel="samples", title="The roughness of the pool")
axes.legend()
figure.tight_layout()

# %%
# And these are the images that it asks for: above each the class that the network says, and the
# true one.
figure, panels = plt.subplots(2, 5, figsize=(7, 3.4))
figure.suptitle("The ten queried digits: guess, and truth in parentheses")
for panel, position in zip(panels.flat, chosen, strict=True):
    sample = left[position]
    panel.imshow(pool_x[sample].reshape(8, 8), cmap="gray_r")
    panel.set_title(f"{scores.pseudo_label[position]} ({pool_y[sample]})", fontsize=9)
    panel.axis("off")
figure.tight_layout()

# %%
# The command line has the same loop, with reports: ``vaal-ext run --dataset digits``.
