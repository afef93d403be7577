"""The last linear layer of a network: what goes into it is the network's embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vaal_ext.network.state import Model

__all__ = ["LastLinear"]


class LastLinear:
    """Sees, while it is entered, the input of the nn.Linear whose output a network's logits are.

    Args:
        model: the network. ValueError where it has no nn.Linear.
    """

    def __init__(self, model: Model) -> None:
        modules = model.modules() if isinstance(model, nn.Module) else ()
        self._layers = [module for module in modules if isinstance(module, nn.Linear)]
        if not self._layers:
            raise ValueError(f"{_NEEDED}, got {type(model).__name__} without any")
        self._calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
        self._handles: list[Any] = []

    def __enter__(self) -> LastLinear:
        self._handles = [layer.register_forward_hook(self._note) for layer in self._layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._calls.clear()

    def _note(self, layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._calls.append((layer, inputs[0], output))

    def of(self, logits: Tensor) -> tuple[Tensor, nn.Linear]:
        """The input [B, D] that gave the logits [B, C] of the last forward, and the layer.

        Raises:
            ValueError: no nn.Linear gave these logits.
        """
        for layer, embedding, output in reversed(self._calls):
            if output.shape == logits.shape and torch.equal(output.to(logits.dtype), logits):
                self._calls.clear()
                return embedding.detach(), layer
        raise ValueError(f"{_NEEDED}; none of its {len(self._layers)} gave them")


_NEEDED = "an embedding needs a network whose logits are the output of an nn.Linear"
