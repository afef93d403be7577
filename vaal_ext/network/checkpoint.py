"""The weights of a network in a file, in the forms in which people have them.

A checkpoint may be the state dict itself, saved by torch.save or as .safetensors, or a dict with
the state dict among its entries (``{"state_dict": ...}`` of Lightning, ``{"model": ..., "epoch":
...}``). Its keys may have a prefix that the network's have not: of what wrapped the network when it
was saved (``module.`` of DistributedDataParallel, ``_orig_mod.`` of torch.compile), or of the
attribute that held it (``model.`` of a Lightning module).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vaal_ext.files.reading import load_torch

__all__ = ["misfits", "read_checkpoint", "state_for"]

# The entries that hold a network's weights by custom; they go before others that fit (averages).
_CUSTOMARY = ("state_dict", "model_state_dict", "model")

_COMPILED = "_orig_mod."  # stands wherever a module was compiled, inside other names too


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What the file holds, on the CPU. Nothing but tensors and plain Python is ever unpickled.

    Raises:
        ValueError: it is damaged, holds other objects, or no dict with texts as keys.
        ImportError: a .safetensors file without the library of that name. OSError: no such file.
    """
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path} must hold a state dict, it holds {type(content).__name__}")
    return content


def state_for(own: Mapping[str, Any], content: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The state dict of a checkpoint that has the keys of a network.

    Args:
        own: the network's state dict. content: see :func:`read_checkpoint`.

    Returns:
        the state dict, and what was done to find it: "" where `content` is it as it stands. A
        prefix is left out only where exactly the network's keys come of it. Where nothing fits it
        is the likeliest of all, for the network to refuse (or to take, by ways of its own).

    Raises:
        ValueError: several entries fit, and none of them has a customary name.
    """
    states = {name: state for name, state in content.items() if _is_state(state)}
    ranked = [name for name in _CUSTOMARY if name in states]
    ranked += [name for name in states if name not in ranked]
    tried = {"": content} | {name: states[name] for name in ranked}
    found = {name: fit for name, state in tried.items() if (fit := _renamed(own, state))}
    if not found:
        likeliest = ranked[0] if ranked else ""
        found = {likeliest: (tried[likeliest], [])}
    name = next(iter(found))
    if len(found) > 1 and name not in ("", *_CUSTOMARY):
        raise ValueError(f"several entries fit ({', '.join(found)}): save the one that is meant")
    state, left_out = found[name]
    return state, ", ".join(([f"its entry {name}"] if name else []) + left_out)


def misfits(own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """What of a state dict does not fit, each kind with its first example; "" if keys and shapes
    do."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} is {_shape(state[key])} in the file and {_shape(own[key])} in the network"
        for key in own
        if key in state and _shape(state[key]) != _shape(own[key])
    ]
    prefix = _prefix(own, state) if missing else None
    if prefix is not None:
        others = [key for key in state if not key.startswith(prefix)]
        return (
            f"the network's keys are all there with {prefix} before them, and the file has others "
            f"too: {others[0]}{_more(others)}"
        )
    kinds = (("the file lacks ", missing), ("the network has no ", unexpected), ("", shapes))
    return "; ".join(f"{text}{found[0]}{_more(found)}" for text, found in kinds if found)


def _renamed(
    own: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]] | None:
    """The state dict under the network's keys and what was left out of its own, or None."""
    if own.keys() == state.keys():
        return dict(state), []
    plain = {key.replace(_COMPILED, ""): value for key, value in state.items()}
    prefix = _prefix(own, plain)
    if prefix is None or not len(own) == len(plain) == len(state):
        return None
    left_out = [prefix] if prefix else []
    left_out += [_COMPILED] if any(_COMPILED in key for key in state) else []
    named = {key: plain[prefix + key] for key in own}
    return named, [f"without {' and '.join(left_out)} in the names"]


def _prefix(own: Mapping[str, Any], state: Mapping[str, Any]) -> str | None:
    """What stands before every key of the network in the state dict, "" or "...."; None if there
    is no such thing."""
    first = next(iter(own), None)
    for key in state:
        prefix = key.removesuffix(first or "")
        ends = first is not None and key.endswith(first) and prefix[-1:] in ("", ".")
        if ends and all(prefix + name in state for name in own):
            return prefix
    return None


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(v, Tensor) for key, v in value.items())
    )


def _pickled(path: Path) -> Any:
    try:
        return load_torch(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a readable state dict: {error}. Put back a copy of it, or save it with "
            "torch.save(model.state_dict(), path)"
        ) from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f"{path} needs safetensors: pip install safetensors") from error
    path.open("rb").close()  # an OSError that names the file
    try:
        state: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no complete .safetensors file: {error}") from error
    return state


def _more(found: list[str]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _shape(value: Any) -> list[int] | str:
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__
