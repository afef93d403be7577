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


def too_large(name: str, network: Trained) -> str | None:
    """Why this query is not run on the network's pool; None where it is."""
    layer = last_layer(network.model)
    size = 8 * len(network.pool) * layer.in_features * layer.out_features
    if name == "BADGE" and size > _MOST:
        return f"its gradient embeddings would take {size / 2**30:.1f} GiB"
    return None


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
