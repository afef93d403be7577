"""
A pool larger than memory
=========================

A pool need not fit into memory. This tutorial writes one to disk, maps it, scores it in pieces,
and picks a query from all of it. It is small, so that the page builds quickly; nothing in it
depends on the size.
"""

# %%
# A file of 40,000 "images" of 3 by 16 by 16 bytes, written without ever being in memory as a
# whole.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import vaal_ext

folder = Path(tempfile.mkdtemp())
shape = (40_000, 3, 16, 16)
written = np.lib.format.open_memmap(folder / "pool.npy", mode="w+", dtype=np.uint8, shape=shape)
rng = np.random.default_rng(0)
for start in range(0, len(written), 4000):
    piece = rng.normal(128, 30, size=(4000, 3, 16, 16))
    piece += rng.normal(0, 40, size=(4000, 3, 1, 1))  # each image has a colour of its own
    written[start : start + 4000] = piece.clip(0, 255)
written.flush()
print(f"{(folder / 'pool.npy').stat().st_size / 2**20:.0f} MiB on disk")

# %%
# A network that tells which of the three channels is brightest, trained for a moment.
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(),
    nn.Flatten(), nn.LazyLinear(3),
)  # fmt: skip
first = torch.from_numpy(written[:2000].astype(np.float32)) / 255
target = first.mean((2, 3)).argmax(1)
model(first[:1])
optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(120):
    batch = torch.randint(len(first), (128,))
    optimiser.zero_grad()
    nn.functional.cross_entropy(model(first[batch]), target[batch]).backward()
    optimiser.step()

# %%
# The pool is mapped: NumPy reads from the file what is asked for. The images stay bytes until they
# reach the device, where ``normalize`` makes ``(x / 255 - mean) / std`` of them, so ``eps`` is in
# those units.
pool = np.load(folder / "pool.npy", mmap_mode="r")
normalize = (0.0, 1.0)
eps = vaal_ext.small_radius(pool, normalize=normalize)
scorer = vaal_ext.LDRScorer(model, eps=eps, normalize=normalize, batch_size=1000)
print(f"eps = {eps:.3f}")

# %%
# **All of it.** Every sample gets its LDR. ``score`` needs memory for four batches and for the
# scores.
scores = scorer.score(pool, progress=False)
print(scores)

# %%
# **What a query needs.** With ``above=90`` LDR is computed only where it can rank above that
# percentile; what was left out has -inf. The picks are the same unless the screen missed a
# candidate.
screened = scorer.score(pool, above=90.0, progress=False)
print(scorer.chosen.report)
for name, found in (("all", scores), ("screened", screened)):
    query = vaal_ext.select(found.ldr, found.pseudo_label, n=100, num_classes=3)
    print(
        f"{name}: {np.isfinite(found.ldr).sum()} samples have an LDR; the first picks: {query[:5]}"
    )

figure, axes = plt.subplots(figsize=(7, 3.5))
bins = np.geomspace(max(scores.ldr.min(), 1e-9), scores.ldr.max(), 60)
axes.hist(scores.ldr, bins=bins, color="#B8C7D6", label="all samples")
axes.hist(
    screened.ldr[np.isfinite(screened.ldr)],
    bins=bins,
    color="#56B4E9",
    label="with an LDR from the screen",
)
axes.axvline(np.percentile(scores.ldr, 90), color="black", linestyle="--", label="percentile 90")
axes.set(
    xscale="log", xlabel="LDR [nats]", ylabel="samples", title="What the screen keeps of a pool"
)
axes.legend()
figure.tight_layout()

# %%
# **In several sittings.** In shards the pool is scored piece by piece into a folder. A killed run
# goes on with the same call; several processes, on machines that share the folder, divide the
# shards.
count = scorer.score_shards(pool, folder / "scores", shard_size=10_000, progress=False)
again = scorer.score_shards(pool, folder / "scores", progress=False)
print(f"scored {count}, and when called again {again}")
print(sorted(path.name for path in (folder / "scores").glob("*.npz")))
together = vaal_ext.read_shards(folder / "scores")
print(f"the same as in one go, up to {np.nanmax(np.abs(together.ldr - scores.ldr)):.1g}")
