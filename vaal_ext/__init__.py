"""Virtual Adversarial Active Learning (VAAL, IEEE BigData 2020) with fused C++ and CUDA kernels.

The names below are loaded when they are first used, so ``import vaal_ext`` costs nothing.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "LDRScorer": "roughness",
    "PoolScores": "pool.scores",
    "ldr_scores": "roughness",
    "posterior_scores": "pool.posterior",
    "read_shards": "pool.shards",
    "select": "selection",
    "small_radius": "radius",
    "vat_loss": "vat",
}
_MODULES = ("ops", "reference")
__all__ = ["__version__", *_HOME, *_MODULES]

if TYPE_CHECKING:
    from vaal_ext import ops as ops
    from vaal_ext import reference as reference
    from vaal_ext.pool.posterior import posterior_scores as posterior_scores
    from vaal_ext.pool.scores import PoolScores as PoolScores
    from vaal_ext.pool.shards import read_shards as read_shards
    from vaal_ext.radius import small_radius as small_radius
    from vaal_ext.roughness import LDRScorer as LDRScorer
    from vaal_ext.roughness import ldr_scores as ldr_scores
    from vaal_ext.selection import select as select
    from vaal_ext.vat import vat_loss as vat_loss

HOW_TO_BUILD = (
    "in the repository, type: pip install 'torch>=2.11' && pip install --no-build-isolation -e . "
    "(a C++ compiler is needed; the README's table 'When the install fails' lists the messages)"
)

if not any(Path(__file__).parent.glob("_ops_cpu*.so")):
    warnings.warn(f"vaal_ext is not built: {HOW_TO_BUILD}", ImportWarning, stacklevel=2)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
