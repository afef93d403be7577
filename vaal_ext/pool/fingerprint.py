"""What must be the same wherever, and whenever, parts of one pool are scored."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vaal_ext.pool.batches import first_samples, pool_part
from vaal_ext.pool.names import pool_names
from vaal_ext.pool.run import PoolRun

__all__ = ["differences", "identity", "index_sha256", "tensors_sha256"]

# What is looked at of a pool: so many places, evenly spread, and samples at each.
_PLACES, _SAMPLES = 16, 4

# So many names at a time are in memory a second time.
_NAMES = 4096


def identity(run: PoolRun, pool: Any, sample_index: Any) -> dict[str, Any]:
    """Settings and fingerprints that scores of one pool share, in types of JSON.

    Of the pool these are its length, 64 samples spread over it, and the samples' identities and
    names (None where it has none, and not there in a manifest of an older version); of the
    network its parameters and buffers. What only rounds otherwise (batch size, device, compiled or
    not) is not among them. Not seen are the code of the network, `logits_fn`, and a model that is
    no nn.Module.

    Raises:
        TypeError, ValueError: see :meth:`PoolRun.index`.
    """
    index = run.index(pool, sample_index)
    size = len(index)
    with torch.random.fork_rng(devices=[]):  # a DataLoader draws a number whenever it is read
        count = min(size, _SAMPLES)
        starts = np.unique(np.linspace(0, size - count, _PLACES).astype(int)).tolist()
        looked_at = [
            first_samples(pool_part(pool, start, start + count), count)
            for start in (starts if size else [])
        ]
    looked_at = [x for x in looked_at if len(x)]
    return {
        "num_samples": size,
        "sample_shape": list(looked_at[0].shape[1:]) if looked_at else None,
        "samples": _sha256(looked_at),
        "sample_index": index_sha256(index) if isinstance(index, np.ndarray) else None,
        "names": _names_sha256(pool, size),
        "network": _network_sha256(run.modules),
        **{name: _plain(value) for name, value in run.measure.settings.items()},
        "amp": run.amp,
        "normalize": None if run.normalize is None else [*map(_plain, run.normalize)],
        "on_nonfinite": run.on_nonfinite,
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two sets of settings differ, a text for each: "eps is 0.5 there and 1.0 here"."""
    return [
        f"{name} is {_told(old.get(name))} there and {_told(new.get(name))} here"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def tensors_sha256(tensors: Iterable[Tensor], heading: Callable[[Tensor], str]) -> str:
    """SHA-256, in hex, over the content of tensors of any shape and dtype, each after its heading,
    a text that tells its kind.

    The hashes in folders of shards and of runs were made with different headings, and stay.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        tensor = tensor.detach().cpu()
        digest.update(heading(tensor).encode())
        dense = tensor if tensor.layout == torch.strided else tensor.to_dense()
        digest.update(dense.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def index_sha256(index: np.ndarray) -> str:
    """SHA-256, in hex, over the identities int64 [N] of a pool's samples."""
    return _sha256([torch.from_numpy(index)])


def _names_sha256(pool: Any, size: int) -> str | None:
    digest = hashlib.sha256()
    for start in range(0, size, _NAMES):
        names = pool_names(pool, start, min(start + _NAMES, size))
        if names is None:
            return None
        digest.update(json.dumps(names.tolist()).encode())
    return digest.hexdigest() if size else None


def _sha256(tensors: Iterable[Tensor]) -> str:
    return tensors_sha256(tensors, lambda x: f"{x.dtype} {list(x.shape)}")


def _network_sha256(modules: tuple[Any, ...]) -> str:
    tensors = []
    for module in modules:
        if isinstance(module, nn.Module):
            tensors += [*module.parameters(), *module.buffers()]
    return _sha256(tensors)


def _plain(value: Any) -> Any:
    """Numbers, and sequences and arrays of them, as JSON has them; anything else as it is."""
    return value if value is None or isinstance(value, str) else np.asarray(value).tolist()


def _told(value: Any) -> str:
    """A value as a message has it; of a fingerprint the beginning, which tells two apart."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"'{value[:8]}...'"
    return repr(value)
