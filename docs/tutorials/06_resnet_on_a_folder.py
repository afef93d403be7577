"""
A ResNet-18 on a folder of images
=================================

Your images lie in a folder and your network is a ResNet-18. This tutorial makes such a folder
from scikit-learn's digits, trains the network for a moment and asks it which images to label.
"""

# %%
# The folder: 600 PNG files without labels, and 60 with, a folder for each class. Yours is there
# already.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from torchvision.transforms import v2

import vaal_ext

root = Path(tempfile.mkdtemp())
digits = load_digits()
for i, (pixels, digit) in enumerate(zip(digits.images[:660], digits.target, strict=False)):
    folder = root / "labelled" / str(digit) if i < 60 else root / "pool"
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray((255 * pixels / 16).astype("uint8")).resize((32, 32))
    image.convert("RGB").save(folder / f"{i:04}.png")
print(sorted(path.name for path in (root / "labelled").iterdir()))

# %%
# Images are normalised as the network was trained. The transform is that of evaluation: with
# random crops an image would be another one each time it is read.
transform = v2.Compose(
    [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


class Files(Dataset):
    """The images of a folder. The scores take over its ``names``."""

    def __init__(self, folder):
        self.paths = sorted(folder.rglob("*.png"))
        self.names = [str(path.relative_to(folder)) for path in self.paths]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as image:
            return transform(image)


# %%
# A short training of a ResNet-18 without pretrained weights, which would have to be downloaded.
torch.manual_seed(0)
train_files = Files(root / "labelled")
x = torch.stack([train_files[i] for i in range(len(train_files))])
y = torch.tensor([int(Path(name).parent.name) for name in train_files.names])
model = resnet18(num_classes=10)
optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(20):
    optimiser.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimiser.step()
print(f"loss on the 60 labels: {loss.item():.3f}")

# %%
# Score the pool. ``small_radius`` sees the images as the network does, so ``eps`` is in normalised
# units. Before scoring, the scorer tries the network on a batch, and warns where something is not
# as it should be. With this hasty network it would say that one gradient is too little, so the
# search takes two steps more.
pool = Files(root / "pool")
eps = vaal_ext.small_radius(pool)
scorer = vaal_ext.LDRScorer(model, eps=eps, num_iters=2)
scores = scorer.score(DataLoader(pool, batch_size=100), progress=False)
query = vaal_ext.select(scores.ldr, scores.pseudo_label, n=12, num_classes=10)
print(f"eps = {eps:.2f} in normalised units; {scores}")

# %%
# The files to label, and the pictures that whoever labels will see.
print([str(scores.name[i]) for i in query])
figure, panels = plt.subplots(2, 6, figsize=(8, 3.9))
figure.suptitle("Twelve images of the folder to be labelled next, with the network's guess")
for panel, i in zip(panels.flat, query, strict=True):
    panel.imshow(Image.open(pool.paths[i]))
    panel.set_title(f"{scores.name[i]}: {scores.pseudo_label[i]}", fontsize=7)
    panel.axis("off")
figure.tight_layout()

# %%
# How the roughness relates to the posterior's entropy, which one forward pass gives.
figure, axes = plt.subplots(figsize=(6, 3.6))
axes.loglog(scores.entropy, scores.ldr, ".", color="#B8C7D6", label="pool")
axes.loglog(scores.entropy[query], scores.ldr[query], "o", color="#D55E00", label="queried")
axes.set(
    xlabel="entropy [nats]", ylabel="LDR [nats]", title="LDR against the entropy of the posterior"
)
axes.legend()
figure.tight_layout()

# %%
# From a shell the same is ``vaal-ext score --data folder:PATH`` and ``vaal-ext select``; with
# people who label, ``vaal-ext query --data folder:PATH``.
