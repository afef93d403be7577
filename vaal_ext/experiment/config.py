"""What a run is told, and how the gaps are filled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from vaal_ext.checks import plain_number, require_int, require_positive
from vaal_ext.experiment.datasets.load import DataSplit
from vaal_ext.experiment.defaults import run_settings
from vaal_ext.network.device import device_named
from vaal_ext.perturbation.search import USUAL_STEPS
from vaal_ext.pool.fingerprint import differences
from vaal_ext.pool.radius import lengths_for, radius_of_all
from vaal_ext.strategies import STRATEGIES, Strategy, make_strategy, parse_strategy
from vaal_ext.vat import VatSettings

__all__ = [
    "ResolvedConfig",
    "RunConfig",
    "as_begun",
    "config_differences",
    "with_defaults",
    "with_lengths",
]

# With "vat_" in front, the fields of VatSettings.
_VAT = ("vat_weight", "vat_method", "vat_xi", "vat_eps", "vat_num_iters", "vat_decay")

# Of the query, and read by the strategy vaal alone.
_OF_VAAL = ("xi", "eps", "num_iters", "percentile", "order", "class_prior", "method", "sign")

# How r is found, by the query and by the regulariser: what a later version has other defaults of.
_SEARCHES = tuple(
    {name: prefix + name for name in ("method", "xi", "num_iters")} for prefix in ("", "vat_")
)

# Where the data lies and how it is read is no part of a run: their content is compared instead.
_NOT_COMPARED = ("data_root", "on_unreadable")


@dataclass(frozen=True)
class RunConfig:
    """One run. What is None is taken from the table of the data set, ``settings.SETTINGS``.

    Attributes:
        dataset, data_root, on_unreadable: see :func:`.datasets.load.load_dataset`.
        strategy: one of ``strategies.STRATEGIES``, by itself or with ``+vat`` behind it, which
            trains with the regulariser of Eq. 3.
        seed: of everything that is drawn, >= 0.
        rounds: number of queries.
        initial: number of labels before the first query.
        query_size: number of labels each query adds. The pool must have ``initial`` and ``rounds``
            times this many samples; it may be used up to the last one.
        pool_size: score and query only this many unlabelled samples, drawn anew in every round;
            None: all of them.
        eps, method, num_iters, xi, percentile, order, class_prior, sign: of the strategy ``vaal``.
            The method is "direct" where it is None, and xi is for "finite-difference" alone. On
            data of one's own eps and xi are measured, see :func:`with_lengths`.
        twins: of the strategy ``dfal``, where it is True by default; None for the others.
        vat_weight, vat_eps, vat_method, vat_num_iters, vat_xi, vat_decay: of the regulariser, see
            :class:`~vaal_ext.vat.VatSettings`; None where the strategy has no ``+vat``, and the
            method "direct" where it has.
        learning_rate, steps, batch_size: of the training.
        warm_start: every round trains on from the weights of the round before (with a fresh
            optimiser), not from fresh weights.
        device: "cpu", "cuda" or "cuda:1", by default "cuda" where there is one.
        backend: "fused" or "reference", see :class:`~vaal_ext.scorer.LDRScorer`.
    """

    dataset: str
    strategy: str
    data_root: str | None = None
    seed: int = 0
    rounds: int = 10
    initial: int | None = None
    query_size: int | None = None
    pool_size: int | None = None
    xi: float | None = None
    eps: float | None = None
    num_iters: int | None = None
    percentile: float | str | None = None
    order: str = "ascending"
    class_prior: Any = "uniform"
    method: str | None = None
    sign: str = "paper"
    twins: bool | None = None
    vat_weight: float | None = None
    vat_method: str | None = None
    vat_xi: float | None = None
    vat_eps: float | None = None
    vat_num_iters: int | None = None
    vat_decay: float | None = None
    learning_rate: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    warm_start: bool = False
    device: str | None = None
    backend: str = "fused"
    on_unreadable: str = "raise"

    def resolved(self) -> ResolvedConfig:
        """The same run with nothing left open, checked as far as that goes without the data.

        Raises:
            TypeError, ValueError: what was expected and what came.
        """
        for name in ("dataset", "strategy"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a string, got {getattr(self, name)!r}")
        query, regularised = parse_strategy(self.strategy)
        table = run_settings(self.dataset, regularised)
        for search in _SEARCHES[: 1 + regularised]:
            method = getattr(self, search["method"])
            table[search["method"]] = "direct" if method is None else method
            if method != "finite-difference":
                del table[search["xi"]]
            if method in (None, "direct"):
                table[search["num_iters"]] = USUAL_STEPS["direct"]
        given = {n: plain_number(v) for n, v in asdict(self).items() if v is not None}
        if query == "dfal":
            table["twins"] = True
        elif self.twins is not None:
            raise ValueError(f"twins is for the strategy dfal, got {self.strategy!r}")
        if not regularised:
            for name in _VAT:
                if name in given:
                    raise ValueError(
                        f"{name} is for strategies that end in +vat, got {self.strategy!r}"
                    )
        device = str(device_named(self.device))
        full = ResolvedConfig(**asdict(self) | table | given | {"device": device})
        if full.on_unreadable not in ("raise", "skip"):
            raise ValueError(f"on_unreadable must be 'raise' or 'skip', got {full.on_unreadable!r}")
        if full.data_root is not None:
            full = replace(full, data_root=str(Path(full.data_root).resolve()))
        kind, colon, path = full.dataset.partition(":")
        if colon:  # absolute, so that `report` finds it from anywhere
            full = replace(full, dataset=f"{kind}:{Path(os.path.expanduser(path)).resolve()}")
        if not isinstance(full.warm_start, bool):
            raise TypeError(f"warm_start must be True or False, got {full.warm_start!r}")
        if not isinstance(full.class_prior, str | None):
            if not isinstance(full.class_prior, Iterable):
                raise TypeError(
                    f"class_prior must be a string, weights or None, got {full.class_prior!r}"
                )
            full = replace(full, class_prior=[float(weight) for weight in full.class_prior])
        require_int("seed", full.seed, 0, 2**63 - 1)
        for name in ("rounds", "initial", "query_size", "steps", "batch_size"):
            require_int(name, getattr(full, name), 1)
        if full.pool_size is not None:
            require_int("pool_size", full.pool_size, 1)
            if full.query_size > full.pool_size:
                raise ValueError(
                    f"query_size must be at most pool_size, got {full.query_size} and "
                    f"{full.pool_size}"
                )
        require_positive("learning_rate", full.learning_rate)
        full.make_vat()
        return full

    def refuse_unread(self) -> None:
        """ValueError where a setting of ``vaal`` is given with a strategy that does not read it.

        What the data set's table has may be given: a ``config.json`` holds every setting.
        """
        name, _ = parse_strategy(self.strategy)
        if name not in STRATEGIES or name == "vaal":
            return
        defaults: dict[str, Any] = {field.name: field.default for field in fields(RunConfig)}
        usual = replace(self, **{setting: defaults[setting] for setting in _OF_VAAL})
        tables = usual.resolved(), replace(usual, method="finite-difference").resolved()
        for setting in _OF_VAAL:
            value = getattr(self, setting)
            if not any(
                isinstance(value, type(known)) and value == known
                for known in (defaults[setting], *(getattr(table, setting) for table in tables))
            ):
                raise ValueError(
                    f"{setting} is for the strategy vaal, got {value!r} with {self.strategy!r}"
                )

    def make_strategy(self) -> Strategy:
        """The strategy with those of these settings that it has. ValueError if one is bad."""
        name, _ = parse_strategy(self.strategy)
        known = STRATEGIES.get(name)
        names = {field.name for field in fields(known)} if known else set()
        settings = {name: value for name, value in asdict(self).items() if name in names}
        return make_strategy(name, **settings)

    def make_vat(self) -> VatSettings | None:
        """The regulariser's settings, of a resolved run; None for a strategy without ``+vat``.

        Raises:
            TypeError, ValueError: a setting of a wrong type or out of its range.
        """
        if not parse_strategy(self.strategy)[1]:
            return None
        try:
            settings = {name.removeprefix("vat_"): getattr(self, name) for name in _VAT}
            return VatSettings(**settings, backend=self.backend)
        except (TypeError, ValueError) as error:
            raise type(error)(f"of the regulariser: {error}") from error


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(RunConfig):
    """What :meth:`RunConfig.resolved` gives: nothing in it is left to the table of the data set."""

    initial: int
    query_size: int
    eps: float
    method: str
    num_iters: int
    percentile: float | str
    learning_rate: float
    steps: int
    batch_size: int
    device: str


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
    for search in _SEARCHES:
        method = getattr(config, search["method"])
        if method in (None, old[search["method"]]):
            names = [name for name in search.values() if getattr(config, name) is None]
            config = replace(config, **{name: old[name] for name in names})
    return config


def with_lengths(config: RunConfig, data: DataSplit) -> RunConfig:
    """`config` with the lengths that a query by ``vaal`` has on data of one's own, where it leaves
    them open: eps is :func:`vaal_ext.small_radius` of the data, and xi a tenth of eps.

    All samples are measured, not the pool alone: which of them are in the pool may hang on the
    seed, and runs that differ in their seed have the same settings. Data sets with a name have
    their lengths in the table. ValueError where there is nothing to measure.
    """
    own = config.dataset.startswith(("npz:", "folder:"))
    if not own or parse_strategy(config.strategy)[0] != "vaal":
        return config
    eps = config.eps
    if eps is None:
        try:
            eps = radius_of_all([data.train_x, data.val_x, data.test_x])
        except ValueError as error:
            raise ValueError(
                f"{config.dataset}: eps cannot be measured, {error}. Give it"
            ) from error
    _, xi = lengths_for(None, eps, config.xi)
    return replace(config, eps=eps, xi=xi if config.method == "finite-difference" else config.xi)


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two runs' settings (as ``config.json`` has them) differ, a text for each setting."""
    return differences(_compared(old), _compared(new))


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    filled = with_defaults(config)
    return {name: filled[name] for name in sorted(filled) if name not in _NOT_COMPARED}
