"""Queries of other libraries, for bench_query.py: from a pool [N, ...] to the positions picked."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from trained import Trained

DRAWS = 20  # passes with dropout
_BATCH = 256
_MOST = 2 << 30  # bytes of BADGE's gradient embeddings, float64 [N, C x features]


def as_trained(model: nn.Module) -> nn.Module:
    """A copy whose parameters require grad, as a user's do."""
    return copy.deepcopy(model).requires_grad_(True)


def last_layer(model: nn.Module) -> nn.Linear:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def has_dropout(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Dropout) for module in model.modules())


def embeddings(model: nn.Module, pool: Tensor) -> np.ndarray:
    """What goes into the last layer, float32 [N, features]."""
    seen: list[Tensor] = []
    layer = last_layer(model)
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].cpu()))
    try:
        with torch.no_grad():
            for x in pool.split(_BATCH):
                model(x)
    finally:
        hook.remove()
    return torch.cat(seen).numpy()


def too_large(name: str, network: Trained) -> str | None:
    """Why this query is not run on the network's pool; None where it is."""
    layer = last_layer(network.model)
    size = 8 * len(network.pool) * layer.in_features * layer.out_features
    if name == "BADGE" and size > _MOST:
        return f"its gradient embeddings would take {size / 2**30:.1f} GiB"
    return None


def skactiveml(name: str, network: Trained, picks: int, pool: Tensor) -> np.ndarray:
    """BADGE, CoreSet or TypiClust of scikit-activeml on the embeddings of labelled and pool."""
    from skactiveml.pool import Badge, CoreSet, TypiClust

    labelled, y = network.labelled
    x = embeddings(network.model, torch.cat([labelled, pool]))
    known = np.full(len(x), np.nan)
    known[: len(y)] = y.cpu().numpy()
    if name == "BADGE":
        found = Badge(random_state=0).query(
            x, known, _classifier(last_layer(network.model)), fit_clf=False, batch_size=picks
        )
    else:
        strategy = {"CoreSet": CoreSet, "TypiClust": TypiClust}[name]
        found = strategy(random_state=0).query(x, known, batch_size=picks)
    return np.asarray(found) - len(y)


def _classifier(layer: nn.Linear):
    """The last layer as a classifier of scikit-activeml, trained already."""
    from skactiveml.base import SkactivemlClassifier

    class LastLayer(SkactivemlClassifier):
        def fit(self, X, y, sample_weight=None):
            return self

        def predict_proba(self, X):
            with torch.no_grad():
                inputs = torch.as_tensor(X, dtype=torch.float32, device=layer.weight.device)
                return layer(inputs).softmax(1).cpu().numpy()

    return LastLayer(classes=list(range(layer.out_features)))


def bald(network: Trained, picks: int, pool: Tensor) -> np.ndarray:
    """BALD of baal, 20 passes with dropout."""
    from baal.active.heuristics import BALD
    from baal.bayesian.dropout import patch_module
    from baal.modelwrapper import ModelWrapper, TrainingArgs

    model = patch_module(copy.deepcopy(network.model), inplace=True)
    on_device = pool.device.type == "cuda"
    wrapper = ModelWrapper(model, TrainingArgs(batch_size=_BATCH, use_cuda=on_device, workers=0))
    # (baal's loader gives x and y: the labels are not looked at.)
    dataset = TensorDataset(pool, torch.zeros(len(pool), dtype=torch.int64))
    predictions = wrapper.predict_on_dataset(dataset, iterations=DRAWS, verbose=False)
    return np.asarray(BALD()(predictions))[:picks]
