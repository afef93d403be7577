"""modAL: an ActiveLearner around a skorch classifier on scikit-learn's digits."""

import numpy as np
import torch
from modAL.models import ActiveLearner
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier

from vaal_ext.integrations.modal import LDRSampling
from vaal_ext.models import MLP

torch.manual_seed(0)
X, truth = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
labelled, test = np.arange(50), slice(1200, None)

net = NeuralNetClassifier(
    MLP(64, 10, hidden=64),
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    max_epochs=40,
    train_split=None,
    verbose=0,
)
learner = ActiveLearner(net, query_strategy=LDRSampling(eps=0.5, seed=0))
for _ in range(4):
    # learner.fit and learner.teach do the same, where scikit-learn is older than 1.8
    learner.estimator.fit(X[labelled], truth[labelled])
    print(f"{len(labelled)} labels: accuracy {learner.score(X[test], truth[test]):.3f}")
    unlabelled = np.setdiff1d(np.arange(1200), labelled)
    pool_index, _ = learner.query(X[unlabelled], n_instances=25, sample_index=unlabelled)
    labelled = np.append(labelled, unlabelled[pool_index])
