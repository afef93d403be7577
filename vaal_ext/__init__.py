"""Virtual Adversarial Active Learning (VAAL, IEEE BigData 2020) with fused C++ and CUDA kernels.

The names below are loaded when they are first used, so ``import vaal_ext`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "LDRScorer": "scorer",
    "PoolScores": "pool.scores",
    "ldr_scores": "perturbation.ldr",
    "posterior_scores": "pool.baselines",
    "read_shards": "pool.shards",
    "select": "selection",
    "small_radius": "pool.radius",
    "vat_loss": "vat",
}
_MODULES = ("ops", "reference")
__all__ = ["__version__", *_HOME, *_MODULES]

if TYPE_CHECKING:
    from vaal_ext import ops as ops
    from vaal_ext import reference as reference
    from vaal_ext.perturbation.ldr import ldr_scores as ldr_scores
    from vaal_ext.pool.baselines import posterior_scores as posterior_scores
    from vaal_ext.pool.radius import small_radius as small_radius
    from vaal_ext.pool.scores import PoolScores as PoolScores
    from vaal_ext.pool.shards import read_shards as read_shards
    from vaal_ext.scorer import LDRScorer as LDRScorer
    from vaal_ext.selection import select as select
    from vaal_ext.vat import vat_loss as vat_loss


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
