"""The settings of a run that was begun before, perhaps by an earlier version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from vaal_ext.experiment.config import SEARCHES, RunConfig
from vaal_ext.pool.fingerprint import differences

__all__ = ["as_begun", "config_differences", "with_defaults"]

# Where the data lies and how it is read is no part of a run: their content is compared instead.
_NOT_COMPARED = ("data_root", "on_unreadable")


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as ``config.json`` has them, and those that a run of an earlier version does not
    have, which had their default then: of the search finite differences."""
    filled = {field.name: field.default for field in fields(RunConfig)} | dict(config)
    if filled["method"] is None:
        filled["method"] = "finite-difference"
    if filled["vat_weight"] is not None:
        if filled["vat_decay"] is None:
            filled["vat_decay"] = 0.0  # of before there was a decay
        if filled["vat_method"] is None:
            filled["vat_method"] = "finite-difference"
    return filled


def as_begun(config: RunConfig, begun: Mapping[str, Any]) -> RunConfig:
    """`config` with what it leaves open of the searches and of eps as a run that was begun has it.

    `begun` are its settings as ``config.json`` has them. A default that came with a later version
    does not change a run of before.
    """
    old = with_defaults(begun)
    if config.eps is None:
        config = replace(config, eps=old["eps"])
    for search in SEARCHES:
        method = getattr(config, search["method"])
        if method in (None, old[search["method"]]):
            names = [name for name in search.values() if getattr(config, name) is None]
            config = replace(config, **{name: old[name] for name in names})
    return config


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two runs' settings (as ``config.json`` has them) differ, a text for each setting."""
    return differences(_compared(old), _compared(new))


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    filled = with_defaults(config)
    return {name: filled[name] for name in sorted(filled) if name not in _NOT_COMPARED}
