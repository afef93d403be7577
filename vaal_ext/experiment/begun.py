"""The settings of a run that was begun before, perhaps by an earlier version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from vaal_ext.experiment.config import SEARCHES, RunConfig
from vaal_ext.pool.fingerprint import differences

__all__ = ["as_begun", "config_differences", "with_defaults"]

# Where the data lie and how they are read may change between two sittings at a run: a fingerprint
# of the data themselves is compared instead.
_NOT_COMPARED = ("data_root", "on_unreadable")


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a ``config.json``, with those that its version did not have yet at the values
    that it used: finite differences for both searches, no decay, and today's defaults for the rest.
    """
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
    """`config`, where it leaves eps or a setting of a search open, with that of a run begun before.

    So a run goes on as it was begun, although the defaults of this version may be others. `begun`
    are the run's settings as its ``config.json`` has them. Where `config` names another method than
    the run has, the rest of that search stays open.
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
    """The settings, as ``config.json`` has them, in which two runs differ; a text for each."""
    return differences(_compared(old), _compared(new))


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    filled = with_defaults(config)
    return {name: filled[name] for name in sorted(filled) if name not in _NOT_COMPARED}
