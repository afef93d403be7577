"""scikit-activeml: a SkorchClassifier on scikit-learn's digits, 100 labels queried by LDR."""

import numpy as np
import torch
from skactiveml.classifier import SkorchClassifier
from sklearn.datasets import load_digits

from vaal_ext.integrations.skactiveml import LDRSampling
from vaal_ext.models import MLP

torch.manual_seed(0)
X, truth = load_digits(return_X_y=True)
X, test, truth_of_test = X[:1200] / 16, X[1200:] / 16, truth[1200:]
y = np.full(len(X), np.nan)
y[:50] = truth[:50]

clf = SkorchClassifier(
    MLP,
    neural_net_param_dict={
        "module__in_features": 64,
        "module__num_classes": 10,
        "module__hidden": 64,
        "optimizer": torch.optim.Adam,
        "max_epochs": 40,
        "train_split": None,
        "verbose": 0,
    },
    classes=range(10),
)
strategy = LDRSampling(eps=0.5, random_state=0)
for _ in range(4):
    clf.fit(X, y)
    accuracy = np.mean(clf.predict(test) == truth_of_test)
    print(f"{np.isfinite(y).sum()} labels: accuracy {accuracy:.3f}")
    query = strategy.query(X, y, clf, fit_clf=False, batch_size=25)
    y[query] = truth[query]
