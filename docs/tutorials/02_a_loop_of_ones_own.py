"""
A loop of one's own, with the regulariser
=========================================

``vaal_ext.vat_loss`` is a term of a loss that needs no labels. This tutorial trains the same
network on the same six labels with it and without it, and draws the two boundaries.
"""

# %%
# Two moons, three labels on each. The other points are known, their labels are not.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons

import vaal_ext
from vaal_ext.models import MLP

x, y = make_moons(600, noise=0.08, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
rng = np.random.default_rng(1)
labelled = np.concatenate([rng.choice(np.flatnonzero(y == c), 3, replace=False) for c in (0, 1)])


# %%
# The training loop is an ordinary one. In every step the regulariser gets a batch of points
# without labels; it asks that the posterior does not change within ``eps`` of any of them. Its
# start directions are keyed by the seed, where a search has one, so the seed changes from step to
# step.
def train(eps, steps=400):
    torch.manual_seed(0)
    model = MLP(2, num_classes=2, hidden=128)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(steps):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[labelled]), y[labelled])
        if eps is not None:
            batch = x[torch.randint(len(x), (64,))]
            loss = loss + vaal_ext.vat_loss(model, batch, eps=eps, seed=step)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return model.eval(), losses


runs = {"without": train(None), "with vat_loss, eps = 0.2": train(0.2)}

# %%
# The two boundaries. The large points are the labels that both networks had.
grid = torch.stack(
    torch.meshgrid(torch.linspace(-1.6, 2.6, 160), torch.linspace(-1.1, 1.6, 120), indexing="xy"),
    -1,
)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
figure.suptitle("Two moons, six labels: the boundary without and with the regulariser")
for panel, (name, (model, _)) in zip(panels, runs.items(), strict=True):
    with torch.no_grad():
        probability = model(grid.reshape(-1, 2)).softmax(1)[:, 1].reshape(grid.shape[:2])
        right = (model(x).argmax(1) == y).double().mean()
    panel.contourf(grid[..., 0], grid[..., 1], probability, levels=20, cmap="RdBu_r", alpha=0.6)
    panel.scatter(*x.T, c=y, cmap="RdBu_r", s=4)
    panel.scatter(*x[labelled].T, c=y[labelled], cmap="RdBu_r", s=90, edgecolor="black")
    panel.set_title(f"{name}: {100 * right:.1f} % right")
figure.tight_layout()

# %%
# How long may ``eps`` be? Too short, and the term does nothing; too long, and it forbids the
# boundary itself. On moons 0.2 was chosen on a validation set, with ten seeds of their own; on
# circles every radius that was tried lost. So try it on data that you do not test on.
radii = [0.02, 0.05, 0.1, 0.2, 0.4, 0.8]
accuracies = []
for radius in radii:
    model, _ = train(radius, steps=200)
    with torch.no_grad():
        accuracies.append(100 * (model(x).argmax(1) == y).double().mean().item())
figure, axes = plt.subplots(figsize=(6, 3.2))
axes.plot(radii, accuracies, marker="o")
axes.set(
    xscale="log",
    xlabel="eps of vat_loss",
    ylabel="right [%]",
    title="One seed, 200 steps: the radius",
)
figure.tight_layout()

# %%
# And the query belongs to the same loop: score what has no label, and select.
model, _ = runs["with vat_loss, eps = 0.2"]
left = np.setdiff1d(np.arange(len(x)), labelled)
scorer = vaal_ext.LDRScorer(model, eps=vaal_ext.small_radius(x))
scores = scorer.score(x[left], sample_index=torch.from_numpy(left), progress=False)
query = left[vaal_ext.select(scores.ldr, scores.pseudo_label, n=10, percentile=70.0, num_classes=2)]

figure, axes = plt.subplots(figsize=(6, 3.6))
points = axes.scatter(*x[left].T, c=np.maximum(scores.ldr, 1e-9), s=8, norm="log", cmap="viridis")
axes.scatter(*x[query].T, s=70, facecolor="none", edgecolor="red", label="queried")
axes.set_title("The roughness of the moons, and a query of ten")
axes.legend()
figure.colorbar(points, label="LDR [nats]")
figure.tight_layout()
