"""DeepAL: a strategy to put beside those in query_strategies/. Data, DigitsNet, Net and
Strategy stand for those of your checkout (data.py, nets.py, query_strategies/strategy.py)."""

import numpy as np
import torch
from deepal_checkout import Data, DigitsNet, Net, Strategy
from sklearn.datasets import load_digits

from vaal_ext.integrations.deepal import LDRSampling
from vaal_ext.integrations.query import LDRQuery


class VaalSampling(LDRSampling, Strategy):
    ldr = LDRQuery(eps=0.5, seed=0)


torch.manual_seed(0)
np.random.seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
dataset = Data(X[:1200], y[:1200], X[1200:], y[1200:])
dataset.initialize_labels(50)
strategy = VaalSampling(dataset, Net(DigitsNet))
for _ in range(4):
    strategy.train()
    accuracy = dataset.cal_test_acc(strategy.predict(dataset.get_test_data()))
    print(f"{dataset.labeled_idxs.sum()} labels: accuracy {accuracy:.3f}")
    strategy.update(strategy.query(25))
