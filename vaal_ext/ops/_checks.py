"""What every op asks of its arguments. All raise before any work is done."""

from __future__ import annotations

import torch
from torch import Tensor

from ._library import HAS_CUDA
from ._transforms import NOT_DIFFERENTIABLE

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_tensor(name: str, x: Tensor) -> None:
    """x is a floating tensor on a device that there are kernels for."""
    if isinstance(x, Tensor) and x.dtype in _DTYPES and (x.is_cpu or (HAS_CUDA and x.is_cuda)):
        return
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.dtype not in _DTYPES:
        raise TypeError(f"{name} must be float32, float64, bfloat16 or float16, got {x.dtype}")
    if x.device.type == "cuda":
        raise ValueError(
            f"{name} is on {x.device}, but vaal_ext was built without its CUDA kernels: put nvcc "
            "on PATH (or set CUDA_HOME) and build again with VAAL_CUDA=1"
        )
    raise ValueError(f"{name} is on {x.device}; there are kernels for cpu and cuda only")


def check_alike(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Both tensors have one shape, dtype and device."""
    same = first.shape == second.shape and first.dtype == second.dtype
    if same and first.device == second.device:
        return
    for what in ("shape", "dtype", "device"):
        a, b = getattr(first, what), getattr(second, what)
        if a != b:
            error = TypeError if what == "dtype" else ValueError
            raise error(
                f"{first_name} and {second_name} must have the same {what}, "
                f"got {_plain(a)} and {_plain(b)}"
            )


def _plain(value: object) -> str:
    return str(list(value)) if isinstance(value, torch.Size) else str(value)


def check_logits(name: str, logits: Tensor) -> None:
    """logits is [B, C] with at least one class."""
    check_tensor(name, logits)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"{name} must be [B, C] with C >= 1, got shape {list(logits.shape)}")


def check_pair(p_logits: Tensor, q_logits: Tensor) -> None:
    check_logits("p_logits", p_logits)
    check_tensor("q_logits", q_logits)
    check_alike("p_logits", p_logits, "q_logits", q_logits)


def check_samples(name: str, x: Tensor) -> None:
    """x is [B, ...]."""
    check_tensor(name, x)
    if x.ndim == 0:
        raise ValueError(f"{name} must be [B, ...], got a tensor without dimensions")


def check_labels(name: str, labels: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """labels is int64 of that shape, on that device."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        came = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"{name} must be an int64 tensor, got {came}")
    if labels.shape != shape or labels.device != device:
        raise ValueError(
            f"{name} must have shape {list(shape)} on {device}, got {list(labels.shape)} on "
            f"{labels.device}"
        )


def refuse_gradient(op: str, *tensors: Tensor) -> None:
    """The op has no derivative; better an error than a gradient that silently lacks a term."""
    for x in tensors:
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(NOT_DIFFERENTIABLE.format(op))


def arithmetic_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
