"""Fingerprints, by which several processes, or a later one, know that they score the same pool with
the same network and settings."""

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

# Of a pool these samples are hashed: _SAMPLES in a row at each of _PLACES evenly spread places.
_PLACES, _SAMPLES = 16, 4

# How many names are hashed at a time: while they are, they take their memory twice.
_NAMES = 4096


def identity(run: PoolRun, pool: Any, sample_index: Any) -> dict[str, Any]:
    """What all scores of one pool must have in common, as values that JSON can hold.

    The pool is known by its length, the content of 64 samples spread over it, and the identities
    and names of its samples ("names" is None where it has none; manifests of older versions lack
    it). The network is known by its parameters and buffers, and the settings stand as they are.
    Batch size, device and compilation are left out: they change scores by rounding alone. Neither
    the code of the network nor `logits_fn` is seen, nor anything of a model that is no nn.Module.

    Raises:
        TypeError, ValueError: see :meth:`PoolRun.index`.
    """
    index = run.index(pool, sample_index)
    size = len(index)
    # A DataLoader draws a random number whenever it is read.
    with torch.random.fork_rng(devices=[]):
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
    """The settings that differ, a text for each: "eps is 0.5 there and 1.0 here"."""
    return [
        f"{name} is {_told(old.get(name))} there and {_told(new.get(name))} here"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def tensors_sha256(tensors: Iterable[Tensor], heading: Callable[[Tensor], str]) -> str:
    """SHA-256, in hex, over the bytes of tensors of any shape and dtype, before each the text that
    `heading` gives it.

    Shards and runs have different headings. The hashes in their folders were made with them, so
    that neither can be changed.
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
    """A number, sequence or array as JSON can hold it; None and texts are returned as they are."""
    return value if value is None or isinstance(value, str) else np.asarray(value).tolist()


def _told(value: Any) -> str:
    """A value as a message shows it; a fingerprint is cut to its first 8 digits."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"'{value[:8]}...'"
    return repr(value)
