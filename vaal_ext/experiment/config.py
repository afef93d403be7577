"""The settings of a run: as the user gives them, and with the rest filled in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from vaal_ext.checks import plain_number, require_int, require_positive
from vaal_ext.experiment.datasets.load import DataSplit
from vaal_ext.experiment.defaults import run_settings
from vaal_ext.network.device import device_named
from vaal_ext.perturbation.search import USUAL_STEPS, SearchSettings
from vaal_ext.pool.radius import lengths_for, radius_of_all
from vaal_ext.strategies import STRATEGIES, Strategy, Vaal, parse_strategy, strategy_named
from vaal_ext.vat import VatSettings

__all__ = [
    "OF_VAAL",
    "SEARCHES",
    "Budget",
    "ResolvedConfig",
    "RunConfig",
    "TrainingSettings",
    "with_lengths",
]

# The names of the settings that say how r is found: the query's, and the regulariser's. Versions
# differ in their defaults.
SEARCHES = tuple(
    {name: prefix + name for name in ("method", "xi", "num_iters")} for prefix in ("", "vat_")
)

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Budget:
    """How many labels are asked for, and when; see :class:`RunConfig`."""

    rounds: int
    initial: int
    query_size: int
    pool_size: int | None

    def __post_init__(self) -> None:
        for name in ("rounds", "initial", "query_size"):
            require_int(name, getattr(self, name), 1)
        if self.pool_size is not None:
            require_int("pool_size", self.pool_size, 1)
            if self.query_size > self.pool_size:
                raise ValueError(
                    f"query_size must be at most pool_size, got {self.query_size} and "
                    f"{self.pool_size}"
                )

    def labels(self, number: int) -> int:
        """How many labels there are when round `number` trains."""
        return self.initial + number * self.query_size


@dataclass(frozen=True)
class TrainingSettings:
    """How the network is trained in every round; see :class:`RunConfig`."""

    learning_rate: float
    steps: int
    batch_size: int
    warm_start: bool

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            require_int(name, getattr(self, name), 1)
        require_positive("learning_rate", self.learning_rate)
        if not isinstance(self.warm_start, bool):
            raise TypeError(f"warm_start must be True or False, got {self.warm_start!r}")


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run, as the user gives them and as ``config.json`` has them.

    Where a setting is None, :meth:`resolved` takes it from the data set's row in
    ``defaults.SETTINGS``, unless its description says otherwise.

    Attributes:
        dataset, data_root, on_unreadable: see :func:`.datasets.load.load_dataset`.
        strategy: one of ``strategies.STRATEGIES``; with ``+vat`` behind it the network is trained
            with the regulariser of Eq. 3.
        seed: of all random numbers, >= 0.
        rounds: number of queries.
        initial: number of labels before the first query.
        query_size: number of labels each query adds. The pool must have at least ``initial`` +
            ``rounds`` · ``query_size`` samples.
        pool_size: score and query only this many unlabelled samples, drawn anew in every round;
            None: all of them.
        eps, method, num_iters, xi, percentile, order, class_prior, sign: of the strategy ``vaal``.
            The method is "direct" where it is None, and xi is for "finite-difference" alone. For
            the data sets ``npz:`` and ``folder:`` eps and xi are measured, see
            :func:`with_lengths`.
        twins: of the strategy ``dfal``, True where it is None; it must be None for the others.
        vat_weight, vat_decay: of the regulariser, see :class:`~vaal_ext.vat.VatSettings`; None
            where the strategy has no ``+vat``.
        vat_eps, vat_method, vat_num_iters, vat_xi: of the regulariser's search, likewise. Its
            method is "direct" where it is None.
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
        """The same run with every setting filled in and checked, as far as that needs no data.

        Raises:
            TypeError, ValueError: what was expected and what came.
        """
        for name in ("dataset", "strategy"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a string, got {getattr(self, name)!r}")
        query, regularised = parse_strategy(self.strategy)
        table = run_settings(self.dataset, regularised)
        for search in SEARCHES[: 1 + regularised]:
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
        for name in given:
            if name.startswith("vat_") and not regularised:
                raise ValueError(
                    f"{name} is for strategies that end in +vat, got {self.strategy!r}"
                )
        full = asdict(self) | table | given | {"device": str(device_named(self.device))}
        if self.on_unreadable not in ("raise", "skip"):
            raise ValueError(f"on_unreadable must be 'raise' or 'skip', got {self.on_unreadable!r}")
        if self.data_root is not None:
            full["data_root"] = str(Path(self.data_root).resolve())
        kind, colon, path = self.dataset.partition(":")
        if colon:  # absolute, so that `report` finds it from anywhere
            full["dataset"] = f"{kind}:{Path(os.path.expanduser(path)).resolve()}"
        if not isinstance(self.class_prior, str | None):
            if not isinstance(self.class_prior, Iterable):
                raise TypeError(
                    f"class_prior must be a string, weights or None, got {self.class_prior!r}"
                )
            full["class_prior"] = [float(weight) for weight in self.class_prior]
        require_int("seed", full["seed"], 0, 2**63 - 1)
        return ResolvedConfig(
            settings=RunConfig(**full),
            budget=_part(Budget, full),
            training=_part(TrainingSettings, full),
            regulariser=_regulariser(full) if regularised else None,
            strategy=_part(strategy_named(query), full),
        )

    def refuse_unread(self) -> None:
        """ValueError where a setting of ``vaal`` is given and the strategy is another one.

        The value that the data set's table has is not refused: ``config.json`` holds it for every
        strategy, and a run may be begun with the settings of another.
        """
        name, _ = parse_strategy(self.strategy)
        if name not in STRATEGIES or name == "vaal":
            return
        defaults: dict[str, Any] = {field.name: field.default for field in fields(RunConfig)}
        usual = replace(self, **{setting: defaults[setting] for setting in OF_VAAL})
        tables = usual.resolved(), replace(usual, method="finite-difference").resolved()
        for setting in OF_VAAL:
            value = getattr(self, setting)
            usual_values = (getattr(table.settings, setting) for table in tables)
            if not any(
                isinstance(value, type(known)) and value == known
                for known in (defaults[setting], *usual_values)
            ):
                raise ValueError(
                    f"{setting} is for the strategy vaal, got {value!r} with {self.strategy!r}"
                )


# The settings of the query that only the strategy vaal reads.
OF_VAAL = tuple(
    field.name
    for field in fields(RunConfig)
    if field.name in {of.name for of in fields(Vaal)} - {"backend"}
)


@dataclass(frozen=True)
class ResolvedConfig:
    """A run with every setting filled in: what :meth:`RunConfig.resolved` gives.

    Attributes:
        settings: all of them, as ``config.json`` holds them. Those that the run does not read are
            as they were given, or as the data set's table has them.
        budget, training, regulariser, strategy: the parts of the run, made from these settings. The
            regulariser is None where the strategy has no ``+vat``.
    """

    settings: RunConfig
    budget: Budget
    training: TrainingSettings
    regulariser: VatSettings | None
    strategy: Strategy


def _part(kind: Callable[..., _Part], settings: Mapping[str, Any]) -> _Part:
    """The dataclass `kind`, each field from the setting of its name; its default if there is none.

    Raises:
        TypeError, ValueError: a setting of a wrong type or out of its range.
    """
    names = (field.name for field in fields(cast(Any, kind)))
    return kind(**{name: settings[name] for name in names if name in settings})


def _regulariser(settings: Mapping[str, Any]) -> VatSettings:
    own = {name[4:]: value for name, value in settings.items() if name.startswith("vat_")}
    weight, decay = own.pop("weight"), own.pop("decay")
    try:
        return VatSettings(weight, SearchSettings(**own, backend=settings["backend"]), decay)
    except (TypeError, ValueError) as error:
        raise type(error)(f"of the regulariser: {error}") from error


def with_lengths(config: RunConfig, data: DataSplit) -> RunConfig:
    """`config` with eps and xi measured on the data, where they are open and the query needs them.

    That is for the strategy ``vaal`` on ``npz:`` and ``folder:``; the other data sets have both in
    the table. eps is :func:`vaal_ext.small_radius` of the data, and xi a tenth of eps. The samples
    that are held out are measured too: which ones they are may depend on the seed, and runs that
    differ in their seed must have the same eps.

    Raises:
        ValueError: eps cannot be measured.
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
