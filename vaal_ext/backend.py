"""The ops by the name of their backend."""

from __future__ import annotations

from types import ModuleType
from typing import Any

__all__ = ["load_backend", "require_backend"]


def require_backend(backend: Any) -> None:
    """ValueError unless backend is "fused" or "reference"."""
    if backend not in ("fused", "reference"):
        raise ValueError(f"backend must be 'fused' or 'reference', got {backend!r}")


def load_backend(backend: str) -> ModuleType:
    """vaal_ext.ops or vaal_ext.reference: the same names, fused or in plain PyTorch.

    ValueError for another name.
    """
    require_backend(backend)
    if backend == "fused":
        from vaal_ext import ops

        return ops
    from vaal_ext import reference

    return reference
