"""What several rooms ask of their arguments."""

from __future__ import annotations

import math
import numbers
import sys
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "index_array",
    "plain_number",
    "refuse_transforms",
    "require_divergence",
    "require_int",
    "require_number",
    "require_positive",
    "require_sample_index",
    "warn_caller",
]


def warn_caller(message: str) -> None:
    """A RuntimeWarning at the line, outside of this package, from which the call came."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("vaal_ext"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RuntimeWarning, stacklevel=level)


def plain_number(value: Any) -> Any:
    """A number of NumPy's as Python's own, which JSON can hold; anything else as it is."""
    return value.item() if isinstance(value, np.number) else value


def refuse_transforms(name: str) -> None:
    """RuntimeError where a transform of torch.func is running, inside of which r cannot be found.

    The search records the network's pass and takes the gradient by its input; that needs a tensor
    of the search's own that requires grad, which torch allows inside of no transform.
    """
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"{name} cannot run inside a transform of torch.func (grad, vjp, jvp, vmap, ...): it "
            "takes a gradient of its own by the input. Call it outside: torch.autograd.grad(loss, "
            "list(model.parameters())) gives the derivatives of a loss, and a loop over batches or "
            "networks does what vmap would"
        )


def require_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    """TypeError unless value is an int (and no bool), ValueError unless low <= value <= high."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if int(value) < low or (high is not None and int(value) > high):
        span = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be {span}, got {value}")


def require_number(name: str, value: Any) -> None:
    """TypeError unless value is a real number (and no bool)."""
    if type(value) is float or type(value) is int:
        return  # nearly always; the question below is slow beside a small op
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")


def require_positive(name: str, value: Any, *, or_zero: bool = False) -> None:
    """TypeError unless value is a number, ValueError unless it is finite and above 0 (or 0)."""
    require_number(name, value)
    if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
        least = "at least" if or_zero else "above"
        raise ValueError(f"{name} must be finite and {least} 0, got {value}")


def require_divergence(divergence: Any, smoothing: Any) -> None:
    """ValueError unless divergence is "symmetric" or "forward" and smoothing lies in [0, 1).

    TypeError where smoothing is no number.
    """
    if divergence not in ("symmetric", "forward"):
        raise ValueError(f"divergence must be 'symmetric' or 'forward', got {divergence!r}")
    require_number("smoothing", smoothing)
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be in [0, 1), got {smoothing}")


def require_sample_index(sample_index: Any, x: Tensor) -> None:
    """TypeError unless sample_index is an int64 tensor, ValueError unless [B], where x [B, ...] is.

    Its values are not looked at, so nothing waits for the device.
    """
    if not isinstance(sample_index, Tensor) or sample_index.dtype != torch.int64:
        came = getattr(sample_index, "dtype", type(sample_index).__name__)
        raise TypeError(f"sample_index must be an int64 tensor, got {came}")
    if sample_index.shape != x.shape[:1] or sample_index.device != x.device:
        raise ValueError(
            f"sample_index must have shape [{x.shape[0]}] on {x.device}, got "
            f"{list(sample_index.shape)} on {sample_index.device}"
        )


def index_array(sample_index: Any, size: int) -> np.ndarray:
    """sample_index as int64 [size] on the host.

    Raises:
        TypeError: no tensor or array of integers. ValueError: another shape, or a negative index.
    """
    if isinstance(sample_index, Tensor):
        sample_index = sample_index.detach().cpu().numpy()
    if not isinstance(sample_index, np.ndarray) or sample_index.dtype.kind not in "iu":
        came = getattr(sample_index, "dtype", type(sample_index).__name__)
        raise TypeError(f"sample_index must be a tensor of integers, got {came}")
    if sample_index.shape != (size,):
        raise ValueError(
            f"sample_index must have shape [{size}], one index per sample, got {sample_index.shape}"
        )
    if size and sample_index.min() < 0:
        raise ValueError(f"sample_index must not be negative, got {sample_index.min()}")
    return sample_index.astype(np.int64)
