"""
A loop of one's own, with the regulariser
=========================================

``vaal_ext.vat_loss`` is a term of a loss that needs no labels. This tutorial trains the same
network on the same ten labels with it and without it, five times, and draws what it changes. Then
it asks that network which points to label next.
"""

# %%
# Two moons, five labels on each. The other points are known, their labels are not.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons

import vaal_ext
from vaal_ext.models import MLP

x, y = make_moons(600, noise=0.05, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def draw_labels(seed):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.choice(np.flatnonzero(y == c), 5, replace=False) for c in (0, 1)])


# %%
# The training loop is an ordinary one. In every step the regulariser gets a batch of points without
# labels; it asks that the posterior changes little within ``eps`` of any of them.
def train(labelled, eps, seed):
    torch.manual_seed(seed)
    model = MLP(2, num_classes=2, hidden=256)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(150):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[labelled]), y[labelled])
        if eps is not None:
            batch = x[torch.randint(len(x), (64,))]
            loss = loss + vaal_ext.vat_loss(model, batch, eps=eps, seed=step)
        loss.backward()
        optimiser.step()
    return model.eval()


def right(model):
    with torch.no_grad():
        return 100 * (model(x).argmax(1) == y).double().mean().item()


# %%
# How long may ``eps`` be? Too short, and the term does nothing; too long, and it forbids the
# boundary itself. Here is every radius with five draws of the ten labels: a dot for each.
radii = [None, 0.1, 0.2, 0.4, 0.8]
models = {(eps, s): train(draw_labels(s), eps, s) for eps in radii for s in range(5)}
accuracy = np.array([[right(models[eps, s]) for s in range(5)] for eps in radii])

figure, axes = plt.subplots(figsize=(6.5, 3.6))
axes.plot(accuracy, "o", color="C0", alpha=0.5)
axes.plot(accuracy.mean(1), color="black", marker="_", markersize=18, label="mean of five")
axes.set_xticks(range(len(radii)), ["without", *(f"eps {eps:g}" for eps in radii[1:])])
axes.set(ylabel="right [%]", title="Moons, ten labels: vat_loss at several radii, five draws")
axes.legend()
figure.tight_layout()
for eps, values in zip(radii, accuracy, strict=True):
    print(
        f"eps {eps}: mean {values.mean():.1f} %, least {values.min():.1f}, most {values.max():.1f}"
    )

# %%
# Five draws say where to look, not which radius is best, and on other data it is another one: on
# circles every radius that was tried lost. So choose it on data that you do not test on.
#
# This is what the first of the five looks like. The large points are the labels that both networks
# had.
labelled = draw_labels(0)
grid = torch.stack(
    torch.meshgrid(torch.linspace(-1.6, 2.6, 160), torch.linspace(-1.1, 1.6, 120), indexing="xy"),
    -1,
)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
figure.suptitle("The first draw: the boundary without and with the regulariser")
for panel, eps in zip(panels, (None, 0.4), strict=True):
    model = models[eps, 0]
    with torch.no_grad():
        probability = model(grid.reshape(-1, 2)).softmax(1)[:, 1].reshape(grid.shape[:2])
    panel.contourf(grid[..., 0], grid[..., 1], probability, levels=20, cmap="RdBu_r", alpha=0.6)
    panel.scatter(*x.T, c=y, cmap="RdBu_r", s=4)
    panel.scatter(*x[labelled].T, c=y[labelled], cmap="RdBu_r", s=90, edgecolor="black")
    name = "without" if eps is None else f"with vat_loss, eps = {eps:g}"
    panel.set_title(f"{name}: {right(model):.1f} % right")
figure.tight_layout()

# %%
# The query belongs to the same loop: score what has no label, and select. Its ``eps`` is another
# one, short beside a sample.
model = models[0.4, 0]
left = np.setdiff1d(np.arange(len(x)), labelled)
scorer = vaal_ext.LDRScorer(model, eps=vaal_ext.small_radius(x))
scores = scorer.score(x[left], sample_index=torch.from_numpy(left), progress=False)
chosen = vaal_ext.select(scores.ldr, scores.pseudo_label, n=10, percentile=70.0, num_classes=2)
query = left[chosen]

figure, axes = plt.subplots(figsize=(6.5, 3.6))
roughness = np.maximum(scores.ldr, 1e-9)
points = axes.scatter(*x[left].T, c=roughness, s=8, norm="log", cmap="viridis")
axes.scatter(*x[query].T, s=70, facecolor="none", edgecolor="red", label="queried")
axes.set_title("The roughness of the moons, and a query of ten")
axes.legend()
figure.colorbar(points, label="LDR [nats]")
figure.tight_layout()
