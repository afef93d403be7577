"""Query strategies behind one interface: score the pool, then pick from the scores.

A pool holds unlabelled samples. Two kinds of index are kept apart: ``pool_index`` is a position in
the pool as it is now, ``sample_index`` one in the data set (it keys the start vector of the
power iteration and is what :class:`~vaal_ext.pool.scores.PoolScores` calls ``index``).

To add a strategy, subclass :class:`Strategy` as a frozen dataclass whose fields are its settings,
and enter it in ``STRATEGIES``.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from vaal_ext.strategies.bald import Bald
from vaal_ext.strategies.dfal import Dfal
from vaal_ext.strategies.interface import QueryContext, Strategy
from vaal_ext.strategies.paper import Entropy, Margin, Random, Vaal
from vaal_ext.strategies.skactiveml import (
    Badge,
    Clue,
    Contrastive,
    CoreSet,
    DropQuery,
    Falcun,
    MaxHerding,
    ProbCover,
    TypiClust,
)

__all__ = [
    "STRATEGIES",
    "Badge",
    "Bald",
    "Clue",
    "Contrastive",
    "CoreSet",
    "Dfal",
    "DropQuery",
    "Entropy",
    "Falcun",
    "Margin",
    "MaxHerding",
    "ProbCover",
    "QueryContext",
    "Random",
    "Strategy",
    "TypiClust",
    "Vaal",
    "make_strategy",
    "parse_strategy",
    "strategy_named",
]


STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy
    for strategy in (
        *(Random, Entropy, Margin, Vaal, Dfal, Bald),
        *(Badge, Clue, Contrastive, CoreSet, DropQuery, Falcun, MaxHerding, ProbCover, TypiClust),
    )
}


def strategy_named(name: str) -> type[Strategy]:
    """The class of the strategy of that name. ValueError if there is none."""
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {name!r}")
    return STRATEGIES[name]


def make_strategy(name: str, **settings: Any) -> Strategy:
    """The strategy of that name. ``settings`` are the fields of its class.

    Raises:
        ValueError: an unknown name, or a setting that this strategy does not have.
        TypeError, ValueError: a setting of a wrong type or out of its range.
    """
    kind = strategy_named(name)
    known = [field.name for field in fields(kind)]
    for setting in settings:
        if setting not in known:
            raise ValueError(
                f"strategy {name} has no setting {setting!r}; it has {', '.join(known) or 'none'}"
            )
    return kind(**settings)


def parse_strategy(name: str) -> tuple[str, bool]:
    """The query strategy that a run's `strategy` names, and whether its training is regularised:
    "vaal+vat" is ("vaal", True). That there is such a strategy is not asked.

    Raises:
        ValueError: something other than +vat behind the name.
    """
    query, plus, regulariser = name.partition("+")
    if plus and regulariser != "vat":
        raise ValueError(f"a strategy may have +vat behind its name and nothing else, got {name!r}")
    return query, bool(plus)
