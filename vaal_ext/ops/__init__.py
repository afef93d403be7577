"""The fused ops. CPU and CUDA, float32, float64, bfloat16 and float16, torch.compile.

A is the type of the arithmetic in the docstrings: float64 for float64 input, else float32.
"""

from . import _library  # noqa: F401  (loads the kernels; everything below needs them)
from .deepfool_step import deepfool_step
from .fisher_direction import fisher_direction
from .fisher_product import fisher_product
from .perturb import perturb
from .posterior_summary import posterior_summary
from .random_perturb import random_perturb
from .symmetric_kl import symmetric_kl
from .symmetric_kl_direction import symmetric_kl_direction

__all__ = [
    "deepfool_step",
    "fisher_direction",
    "fisher_product",
    "perturb",
    "posterior_summary",
    "random_perturb",
    "symmetric_kl",
    "symmetric_kl_direction",
]
