"""baal: an ActiveLearningDataset of scikit-learn's digits, labelled by a loop that asks LDR."""

import numpy as np
import torch
from baal.active import ActiveLearningDataset
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from vaal_ext.integrations.baal import LDRLoop
from vaal_ext.models import MLP

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
dataset = ActiveLearningDataset(TensorDataset(X[:1200], y[:1200]), labelled=np.arange(1200) < 50)

model = MLP(64, 10, hidden=64)
loop = LDRLoop(dataset, model, query_size=25, eps=0.5, seed=0)
for _ in range(4):
    optimiser = torch.optim.Adam(model.train().parameters(), lr=0.003)
    for _ in range(40):
        for x, target in DataLoader(dataset, batch_size=64, shuffle=True):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x), target).backward()
            optimiser.step()
    with torch.no_grad():
        accuracy = (model.eval()(X[1200:]).argmax(1) == y[1200:]).double().mean()
    print(f"{dataset.n_labelled} labels: accuracy {accuracy:.3f}")
    loop.step()
