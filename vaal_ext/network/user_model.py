"""A user's network from `package.module:factory` and a file of weights."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from torch import nn

from vaal_ext.files.reading import require_finite
from vaal_ext.network.checkpoint import misfits, read_checkpoint, state_for

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


def load_model(spec: str, weights: Path) -> tuple[nn.Module, str]:
    """The network that the factory `spec` makes, with the weights in the file `weights`.

    Returns:
        the network, and what was done to find its weights in the file ("" where nothing was), see
        :func:`vaal_ext.network.checkpoint.state_for`.

    Raises:
        ValueError: see :func:`load_factory`; a factory that fails or makes no nn.Module; a file
            that is damaged or without weights, whose weights do not fit the network key by key and
            shape by shape, or give it parameters that are not finite.
        ImportError: a .safetensors file without that library. OSError: the file cannot be read.
    """
    load_factory(spec)  # a wrong name is found before a large file is read
    content = read_checkpoint(weights)
    model = make_model(spec)
    own = model.state_dict()
    try:
        state, done = state_for(own, content)
    except ValueError as error:
        raise ValueError(f"{weights} does not fit {spec}: {error}") from None
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = ": ".join(filter(None, (done, misfits(own, state) or _reason(error))))
        raise ValueError(f"{weights} does not fit {spec}: {reason}") from error
    try:
        require_finite(model.named_parameters())
    except ValueError as error:
        raise ValueError(f"{weights} is damaged, or its training diverged: {error}") from error
    return model, done


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
