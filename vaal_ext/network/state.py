"""A model used without a trace: lent for scoring, or called with copies of its buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["Model", "borrowed", "home_device", "tensors_of", "unwrapped", "with_copied_buffers"]

Model = Callable[..., Any]


def unwrapped(model: Model) -> Model:
    """The network inside DistributedDataParallel or DataParallel; any other callable as it is.

    Scoring needs neither: every process scores samples of its own on its own device, and the first
    would wait in each forward (for the buffers of rank 0) for processes that have fewer batches.
    """
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model


def tensors_of(model: Model) -> list[Tensor]:
    """The parameters and buffers of a module, of any shape and dtype; none of another callable."""
    return [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []


def home_device(model: Model) -> torch.device | None:
    """The device of a module's first parameter or buffer; None where there is none."""
    return next((tensor.device for tensor in tensors_of(model)), None)


@contextmanager
def borrowed(model: Model, device: torch.device) -> Iterator[None]:
    """Lends `model` in eval mode with requires_grad off, and gives it back as it came.

    Inside the block autograd can record, whatever surrounds it (torch.no_grad and
    torch.inference_mode included). Afterwards, also after an exception, everything is as before:
    the train/eval flag of every submodule, requires_grad of every tensor, every `.grad`, every
    buffer bit for bit (a model may update buffers in eval mode, replace them or add new ones), and
    the random states of the CPU and of the CUDA devices that the model and `device` name.

    The flags are set on each submodule, not through `model.eval()`: a method that a class
    overrides may do more than can be taken back (merge adapters) or refuse (exported programs).
    For a callable that is no nn.Module only the random states and the grad mode are kept: it must
    itself take care of the modules that it uses.

    Raises:
        ValueError: a parameter or buffer is an inference tensor (autograd cannot record through
            it) or not yet initialised (lazy modules).
    """
    tensors = tensors_of(model)
    _check(tensors)
    cuda = sorted({t.device.index for t in tensors if t.device.type == "cuda"})
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        cuda = sorted({*cuda, index})
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        # Before the first change, so that nothing can fail between a change and its undoing.
        stack.callback(
            _restore,
            [(module, module.training) for module in modules],
            [(tensor, tensor.requires_grad, tensor.grad) for tensor in tensors if tensor.is_leaf],
            [(module, _saved(module)) for module in modules],
        )
        for module in modules:
            module.training = False
        for tensor in tensors:
            if tensor.requires_grad and tensor.is_leaf:
                tensor.requires_grad_(False)
        yield


def with_copied_buffers(model: Model, *, detached: bool) -> Model:
    """`model` as a function of its input that leaves the buffers alone, in the mode it is in.

    Every call runs on fresh copies of the buffers, so batch-norm statistics are used and not
    updated. (Putting saved ones back would count as an in-place change, which spoils a graph that
    the caller has recorded through them, and would wait for the device.) With `detached` the call
    sees the parameters detached: nothing is recorded for their gradients, and autocast keeps no
    cast of them. A buffer that the forward registers is removed after it. A callable that is no
    nn.Module is returned as it is.

    Raises:
        ValueError: see :func:`borrowed`.
    """
    if not isinstance(model, nn.Module):
        return model
    _check(tensors_of(model))
    before = [(module, dict(module._buffers.items())) for module in model.modules()]

    def call(x: Tensor) -> Any:
        state = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
        if detached:
            state |= {name: parameter.detach() for name, parameter in model.named_parameters()}
        try:
            return functional_call(model, state, (x,))
        finally:
            for module, buffers in before:  # functional_call puts back those that it was given
                _put_back(module, buffers)

    return call


def _check(tensors: list[Tensor]) -> None:
    if torch.compiler.is_compiling():
        return  # torch.compile cannot trace the two questions below
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        raise ValueError(
            "the model has uninitialised (lazy) parameters: call it once on a batch before scoring"
        )
    if any(tensor.is_inference() for tensor in tensors):
        raise ValueError(
            "the model has parameters or buffers made under torch.inference_mode(), through which "
            "autograd cannot record: build or load the model outside of inference mode"
        )


class _Saved(NamedTuple):
    """A buffer as it was: the tensor itself, its content, and how often it had been written."""

    tensor: Tensor
    content: Tensor
    version: int

    def restore(self) -> None:
        # Only what has changed is written: writing counts as an in-place change, which would spoil
        # a graph that the caller has recorded through this buffer and not yet run backward. The
        # version does not show writes through `.data`, and equality does not show a changed sign of
        # zero, so both are asked. (Sparse tensors cannot be compared.)
        written = self.tensor._version != self.version
        dense = self.tensor.layout == torch.strided
        if written or (dense and not torch.equal(self.tensor, self.content)):
            with torch.no_grad():
                self.tensor.copy_(self.content)


def _saved(module: nn.Module) -> dict[str, _Saved | None]:
    """The module's own buffers by name; None for one that is registered as None."""
    return {
        name: None if b is None else _Saved(b, b.detach().clone(), b._version)
        for name, b in module._buffers.items()
    }


def _put_back(module: nn.Module, buffers: dict[str, Tensor | None]) -> None:
    """Makes `buffers` (by name, None for one registered as None) the module's own, no others."""
    for name in set(module._buffers.keys()) - buffers.keys():
        delattr(module, name)  # and out of the set of those that are not saved, too
    for name, buffer in buffers.items():
        if name not in module._buffers or module._buffers[name] is not buffer:
            module._buffers[name] = buffer


def _restore(
    flags: list[tuple[nn.Module, bool]],
    gradients: list[tuple[Tensor, bool, Tensor | None]],
    buffers: list[tuple[nn.Module, dict[str, _Saved | None]]],
) -> None:
    for module, training in flags:
        module.training = training
    for tensor, requires_grad, grad in gradients:
        tensor.requires_grad_(requires_grad)
        if tensor.grad is not grad:
            tensor.grad = grad
    for module, saved in buffers:
        _put_back(module, {name: None if b is None else b.tensor for name, b in saved.items()})
        for buffer in saved.values():
            if buffer is not None:
                buffer.restore()
