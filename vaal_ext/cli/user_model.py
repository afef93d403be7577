"""A user's network from `package.module:factory` and a file of weights."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vaal_ext.reading import load_torch, require_finite

__all__ = ["load_factory", "load_model", "make_model"]


def load_factory(spec: str) -> Callable[[], nn.Module]:
    """The callable that `spec`, "package.module:factory", names.

    Modules in the current folder are found too, as with ``python -m``. ValueError if there is no
    such module, if importing it fails, or if it has no such callable.
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise ValueError(f"the model must be given as package.module:factory, got {spec!r}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"cannot import {module_name!r}: {_reason(error)}") from error
    factory: Callable[[], nn.Module] | None = getattr(module, name, None)
    if not callable(factory):
        raise ValueError(f"module {module_name!r} has no callable {name!r}")
    return factory


def load_model(spec: str, weights: Path) -> nn.Module:
    """The network that the factory `spec` makes, with the state dict in the file `weights`.

    The file is proved whole by its checksums, and nothing but tensors in it is ever unpickled.

    Raises:
        ValueError: see :func:`load_factory`; a factory that fails or makes no nn.Module; a file
            that is damaged, is no state dict, does not fit the network key by key and shape by
            shape, or gives it parameters that are not finite.
        OSError: the file cannot be read.
    """
    load_factory(spec)  # a wrong name is found before a large file is read
    state = _read_state(weights)
    model = make_model(spec)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        misfits = _misfits(model.state_dict(), state) or _reason(error)
        raise ValueError(f"{weights} does not fit {spec}: {misfits}") from error
    try:
        require_finite(model.named_parameters())
    except ValueError as error:
        raise ValueError(f"{weights} is damaged, or its training diverged: {error}") from error
    return model


def make_model(spec: str) -> nn.Module:
    """The network that the factory `spec` makes, with the weights that it comes with.

    Raises:
        ValueError: see :func:`load_factory`; a factory that fails or makes no nn.Module.
    """
    factory = load_factory(spec)
    try:
        model = factory()
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"{spec} called without arguments failed: {_reason(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{spec} must return a torch.nn.Module, got {type(model).__name__}")
    return model


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = load_torch(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a readable state dict: {error}. Put back a copy of it, or save it with "
            "torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path} must hold a state dict, it holds {type(state).__name__}")
    return state


def _misfits(own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """What of a state dict does not fit, each kind with its first example; "" if keys and shapes
    do."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} is {_shape(state[key])} in the file and {_shape(own[key])} in the network"
        for key in own
        if key in state and _shape(state[key]) != _shape(own[key])
    ]
    kinds = (("the file lacks ", missing), ("the network has no ", unexpected), ("", shapes))
    return "; ".join(
        f"{text}{found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
        for text, found in kinds
        if found
    )


def _shape(value: Any) -> list[int] | str:
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__
