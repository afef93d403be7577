"""The ops in plain PyTorch: the oracle of the tests and the opponent of the benchmarks.

Every op has a twin here with its name, arguments and results (:func:`random_normal` is the start
direction by itself); of the arguments only divergence and smoothing are checked. The formulas are
the pivot formulas of docs/source/how_it_works.md ("Why the numbers are right"). `symmetric_kl` and
`posterior_summary` are computed in the dtype of the input (float16 and bfloat16 in float32), the
others in float64 and rounded once: ``reference.f(x.double())`` is the oracle for a float32 kernel.
Nothing here is fused, and nothing here is fast.
"""

from .deepfool_step import deepfool_step
from .fisher_direction import fisher_direction
from .fisher_product import fisher_product
from .perturb import perturb
from .posterior_summary import posterior_summary
from .random_perturb import philox4x32, random_normal, random_perturb
from .symmetric_kl import symmetric_kl
from .symmetric_kl_direction import symmetric_kl_direction

__all__ = [
    "deepfool_step",
    "fisher_direction",
    "fisher_product",
    "perturb",
    "philox4x32",
    "posterior_summary",
    "random_normal",
    "random_perturb",
    "symmetric_kl",
    "symmetric_kl_direction",
]
