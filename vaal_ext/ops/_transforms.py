"""How the ops meet torch.func and forward-mode differentiation.

The raw ops of torch.ops.vaal know reverse mode alone: in forward mode the dispatcher would drop a
tangent without a word, and torch.func would ask for a setup_context, which
torch.library.register_autograd does not give it. So while one of the two is at work an op reaches
its kernel through an autograd.Function, and at all other times directly: that costs two look-ups.

Samples (dimension 0) do not interact in any op, hence one rule of torch.func.vmap for all: the
dimension that is mapped over joins the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["NOT_DIFFERENTIABLE", "at_work", "not_differentiable", "transformable"]

#: What an op without a derivative says in reverse mode; the name of the op goes into it.
NOT_DIFFERENTIABLE = "{} is not differentiable: call it under torch.no_grad() or detach"


def at_work() -> bool:
    """Whether a transform of torch.func is running, or a level of forward-mode duals is open."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def transformable(
    op: Callable[..., Any],
    *,
    backward: Callable[..., Any],
    jvp: Callable[..., Any],
    setup_context: Callable[..., None] = lambda ctx, inputs, output: None,
) -> Callable[..., Any]:
    """`op` as a function that torch.func can transform, with these derivatives."""

    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[Any, int | tuple[int, ...]]:
        size = info.batch_size

        def merged(x: Any, at: int | None) -> Any:
            if not isinstance(x, Tensor):
                return x
            mapped = x.expand(size, *x.shape) if at is None else x.movedim(at, 0)
            return mapped.flatten(0, 1)

        def parted(x: Any) -> Any:
            return x.unflatten(0, (size, len(x) // size))

        result = function.apply(*map(merged, args, in_dims))  # type: ignore[attr-defined]
        if isinstance(result, Tensor):
            return parted(result), 0
        return tuple(map(parted, result)), (0,) * len(result)

    methods = {
        "forward": lambda *args: op(*args),
        "setup_context": setup_context,
        "backward": backward,
        "jvp": jvp,
        "vmap": vmap,
    }
    members = {name: staticmethod(method) for name, method in methods.items()}
    function = type(f"Transformable_{op}", (torch.autograd.Function,), members)
    # torch.compile cannot follow a function with a jvp: it leaves this call to eager mode, or says
    # why not under fullgraph=True.
    apply: Callable[..., Any] = torch.compiler.disable(
        function.apply,  # type: ignore[attr-defined]
        reason="the ops of vaal_ext cannot be compiled inside a transform of torch.func or in "
        "forward mode: leave fullgraph out",
    )
    return apply


def not_differentiable(name: str) -> Callable[..., Any]:
    """The raw op of that name.

    Raises (the function that is returned):
        RuntimeError: a derivative is asked of it.
    """
    op = getattr(torch.ops.vaal, name).default

    def backward(*_: Any) -> NoReturn:
        raise RuntimeError(NOT_DIFFERENTIABLE.format(name))

    def jvp(*_: Any) -> NoReturn:
        raise RuntimeError(
            f"{name} is not differentiable: detach what it is given "
            "(torch.no_grad() does not switch forward mode off)"
        )

    transformed = transformable(op, backward=backward, jvp=jvp)

    def call(*args: Any) -> Any:
        return transformed(*args) if at_work() else op(*args)

    return call
