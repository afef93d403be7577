"""A pytest plugin that stands in for another processor: products are summed in another order.

``pytest -p other_sums -m rounding``, with the number of the processor in VAAL_TEST_PROCESSOR. Every
Linear and convolution, and the gradient of its output, is off by up to two units in the last place
of the largest number of its sample. As on a real processor the errors are the same whenever the
same batch comes again, and others in a batch of another size.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

_PROCESSOR = int(os.environ.get("VAAL_TEST_PROCESSOR", "0"))
_ULPS = 2.0


@torch.no_grad()
def _errors(value: Tensor) -> Tensor:
    """What this processor is off by, in a batch of this size, like value [B, ...]."""
    if value.numel() == 0 or value.ndim < 2:
        return torch.zeros_like(value)
    # Numbers without a pattern that need no generator: under torch.vmap there is none.
    place = torch.arange(value.numel(), dtype=torch.float64).view(value.shape)
    error = torch.sin((place + 1) * (12.9898 + _PROCESSOR) + 78.233 * len(value))
    size = value.abs().amax(tuple(range(1, value.ndim)), keepdim=True)
    return (error * _ULPS * torch.finfo(value.dtype).eps).to(value.dtype) * size


def _after(module: nn.Module, arguments: object, output: object) -> Tensor | None:
    if not isinstance(module, nn.Linear | nn.Conv2d) or type(output) is not Tensor:
        return None
    if output.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient + _errors(gradient))
    return output + _errors(output)


nn.modules.module.register_module_forward_hook(_after)
