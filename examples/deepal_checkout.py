"""What with_deepal.py uses of a checkout of the DeepAL family, in place of one: the interfaces of
data.py, nets.py and query_strategies/strategy.py in github.com/ej0cl6/deep-active-learning."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Handler(Dataset):
    def __init__(self, X, Y):
        self.X, self.Y = X, Y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return self.X[index], self.Y[index], index


class Data:
    def __init__(self, X_train, Y_train, X_test, Y_test):
        self.X_train, self.Y_train, self.X_test, self.Y_test = X_train, Y_train, X_test, Y_test
        self.labeled_idxs = np.zeros(len(X_train), dtype=bool)

    def initialize_labels(self, num):
        self.labeled_idxs[np.random.permutation(len(self.X_train))[:num]] = True

    def _part(self, mask):
        return np.flatnonzero(mask), Handler(self.X_train[mask], self.Y_train[mask])

    def get_labeled_data(self):
        return self._part(self.labeled_idxs)

    def get_unlabeled_data(self):
        return self._part(~self.labeled_idxs)

    def get_test_data(self):
        return Handler(self.X_test, self.Y_test)

    def cal_test_acc(self, preds):
        return (self.Y_test == preds).double().mean().item()


class DigitsNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x):
        embedding = torch.relu(self.inner(x))
        return self.outer(nn.functional.dropout(embedding, training=self.training)), embedding


class Net:
    def __init__(self, net):
        self.net = net

    def train(self, data):
        self.clf = self.net().train()
        optimiser = torch.optim.Adam(self.clf.parameters(), lr=0.003)
        for _ in range(40):
            for x, y, _ in DataLoader(data, batch_size=64, shuffle=True):
                optimiser.zero_grad()
                nn.functional.cross_entropy(self.clf(x)[0], y).backward()
                optimiser.step()

    def predict(self, data):
        with torch.no_grad():
            return self.clf.eval()(data.X)[0].argmax(1)


class Strategy:
    def __init__(self, dataset, net):
        self.dataset, self.net = dataset, net

    def query(self, n):
        raise NotImplementedError

    def update(self, pos_idxs):
        self.dataset.labeled_idxs[pos_idxs] = True

    def train(self):
        self.net.train(self.dataset.get_labeled_data()[1])

    def predict(self, data):
        return self.net.predict(data)
