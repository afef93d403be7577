"""What is run for every figure and table: one entry each, on one page.

An exhibit (a figure or a table) needs runs: variants on a data set, all over the same seeds. A
variant names what differs from the data set's own settings (``defaults.SETTINGS``) with the paper's
search. In the tables "vaal" has the direct search, which is the default, and "vaal (Ip 5)" the
paper's with a short step; "vaal (paper)" has the paper's one number for both lengths, xi = eps = 2,
too, and "vaal (eps 2, maximum)" that length with 20 steps, which find the maximum.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vaal_ext.experiment.datasets.names import TOYS
from vaal_ext.experiment.defaults import PRESETS

__all__ = ["EXHIBITS", "Exhibit", "Variant", "exhibits_named"]

Variant = dict[str, Any]

_PAPER_QUERY = {key: PRESETS["paper"][key] for key in ("method", "xi", "eps", "num_iters")}
_PAPER_VAT = {
    key: PRESETS["paper"][key] for key in ("vat_method", "vat_xi", "vat_eps", "vat_num_iters")
}

_DIRECT = {"method": "direct", "xi": None, "num_iters": 0}
_DIRECT_VAT = {"vat_method": "direct", "vat_xi": None, "vat_num_iters": 0}


def _plain(*names: str) -> dict[str, Variant]:
    return {name: {"strategy": name} for name in names}


def _regularised(*queries: str) -> dict[str, Variant]:
    """So that what the regulariser gains is not credited to the query."""
    return {
        f"{name}+vat": {"strategy": f"{name}+vat", **_DIRECT, **_DIRECT_VAT} for name in queries
    }


# The rows of every table: the paper's strategies, margin, and the opponents that people use.
_ROWS = (
    _plain("random", "entropy", "margin", "dfal", "badge", "typiclust")
    | {
        "vaal": {"strategy": "vaal", **_DIRECT},
        "vaal (eps 2, maximum)": {"strategy": "vaal", **_DIRECT, "num_iters": 20, "eps": 2.0},
    }
    | _regularised("random", "entropy", "vaal")
)
# And what only the small data sets are tried with.
_MORE_ROWS = (
    _plain(
        "bald", "coreset", "probcover", "clue", "contrastive", "dropquery", "falcun", "maxherding"
    )
    | {
        "vaal (Ip 5)": {"strategy": "vaal"},
        "vaal (paper)": {"strategy": "vaal", **_PAPER_QUERY},
        "vaal+vat (paper)": {"strategy": "vaal+vat", **_PAPER_QUERY, **_PAPER_VAT},
    }
    | _regularised("margin")
)
_RANDOM = _plain("random")
_BOTH = {name: (_ROWS | _MORE_ROWS)[name] for name in ("random", "vaal", "vaal (Ip 5)")}


@dataclass(frozen=True)
class Exhibit:
    """What one figure or table needs.

    Attributes:
        shows: what is drawn: "contours", "updates", "curves", "losses", "table", "sweep" (areas on
            the validation set), "roughness" (LDR beside other scores) or "radius" (what LDR finds,
            against the radius).
        datasets: each is run with all variants.
        variants: label -> fields of :class:`~vaal_ext.experiment.config.RunConfig`.
        seeds: how many, unless told otherwise, from `first_seed` upward. Settings are chosen on
            seeds that no result is reported on.
        rounds: queries of a run.
        one_query: whether the figure is about a single query, so that `rounds` stands.
        title: for the tables and figures.
    """

    shows: str
    title: str
    datasets: tuple[str, ...]
    variants: dict[str, Variant] = field(default_factory=lambda: dict(_ROWS))
    seeds: int = 5
    rounds: int = 10
    one_query: bool = False
    first_seed: int = 0


def _vaal(**settings: Any) -> Variant:
    return {"strategy": "vaal", **settings}


def _radii(*lengths: float) -> dict[str, Variant]:
    """VAAL with radius eps and a tenth of it as step."""
    return {f"vaal, eps {eps:g}": _vaal(eps=eps, xi=eps / 10) for eps in lengths}


_BASELINES = _plain("random", "entropy", "margin")
_FISHER = {"method": "fisher", "xi": None}
_RISING = {"percentile": "accuracy"}
_SEARCHES = {
    "vaal": _vaal(),
    "vaal, sign max": _vaal(sign="max"),
    "vaal, fisher": _vaal(**_FISHER),
    "vaal, fisher, sign max": _vaal(**_FISHER, sign="max"),
    "vaal, descending": _vaal(order="descending"),
    "vaal, random order": _vaal(order="random"),
    "vaal, no prior": _vaal(class_prior=None),
    "vaal, PRT 80": _vaal(percentile=80.0),
    "vaal, PRT 95": _vaal(percentile=95.0),
    "vaal, rising": _vaal(**_RISING),
    "vaal, rising, eps 0.25": _vaal(**_RISING, eps=0.25, xi=0.025),
    "vaal, rising, fisher, sign max": _vaal(**_RISING, **_FISHER, sign="max"),
    "vaal, rising, random order": _vaal(**_RISING, order="random"),
    "vaal, rising, no prior": _vaal(**_RISING, class_prior=None),
}
_TOY_SEARCHES = {
    f"vaal, eps {eps:g}, {order}": _vaal(eps=eps, xi=eps / 10, order=order)
    for order in ("ascending", "random", "descending")
    for eps in (0.02, 0.1, 0.5, 2.0)
}
_TOY_REGULARISERS = {
    f"random+vat, eps {eps:g}": {"strategy": "random+vat", "vat_eps": eps, "vat_xi": eps / 10}
    for eps in (0.002, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5)
}
_RADII = _radii(0.1) | {"vaal, eps 2 (paper)": _vaal(**_PAPER_QUERY)}

EXHIBITS: dict[str, Exhibit] = {
    "fig3": Exhibit("contours", "Circles before and after a query", ("circles",), _BOTH, 1, 1,
        True),
    "fig4": Exhibit("contours", "Moons before and after a query", ("moons",), _BOTH, 1, 1, True),
    "fig5": Exhibit(
        "updates", "Test error against updates, 10 + 10 labels", TOYS, _BOTH, 20, 1, True,
    ),
    "fig6": Exhibit(
        "curves", "Percentile rank threshold (PRT)", ("mnist",),
        {f"PRT {prt}": _vaal(percentile=float(prt)) for prt in (70, 80, 90, 99)},
    ),
    "fig7": Exhibit(
        "curves", "Iterations of the power method (Ip)", ("mnist",),
        {f"Ip {number}": _vaal(num_iters=number) for number in range(1, 7)}
        | {f"direct, {n} more": _vaal(**_DIRECT) | {"num_iters": n} for n in range(3)},
    ),
    "fig9": Exhibit(
        "losses", "Losses and accuracy without and with uniform sampling", ("mnist",),
        {"without": _vaal(class_prior=None), "uniform": _vaal(class_prior="uniform")},
    ),
    "fig10": Exhibit(
        "curves", "Without and with uniform sampling", ("mnist",),
        {"without": _vaal(class_prior=None), "uniform": _vaal(class_prior="uniform")},
    ),
    "table2": Exhibit("table", "Table II: MNIST", ("mnist",)),
    "table3": Exhibit("table", "Table III: SVHN", ("svhn",)),
    "table4": Exhibit("table", "Table IV: CIFAR-10", ("cifar10",)),
    # Beside the paper, and not among "all".
    "toys": Exhibit(
        "table", "Every strategy, 10 + 10 labels", TOYS, _ROWS | _MORE_ROWS, 20, 1, True
    ),
    "digits": Exhibit("table", "Digits", ("digits",), _ROWS | _MORE_ROWS, 20),
    "fashion": Exhibit("table", "Fashion-MNIST", ("fashion-mnist",)),
    "what-ldr-is": Exhibit("roughness", "what LDR measures", ("digits",), _RADII, 1, 4),
    "what-ldr-is-mnist": Exhibit("roughness", "what LDR measures", ("mnist",), _RADII, 1, 4),
    "radius": Exhibit(
        "radius", "a radius is small beside |x|", ("circles", "moons", "digits"), _RANDOM, 5, 3
    ),
    "radius-mnist": Exhibit("radius", "a radius is small beside |x|", ("mnist",), _RANDOM, 2, 3),
    "radius-fashion": Exhibit(
        "radius", "a radius is small beside |x|", ("fashion-mnist",), _RANDOM, 2, 3
    ),
    "radius-cifar10": Exhibit(
        "radius", "a radius is small beside |x|", ("cifar10",), _RANDOM, 2, 3
    ),
    # How settings were chosen: on the validation set, and on seeds of their own.
    "radius-toys": Exhibit(
        "sweep", "length of the perturbation and order", ("circles", "moons"),
        _plain("random", "entropy") | _TOY_SEARCHES, 10, 1, True,
        first_seed=100,
    ),
    "vat-toys": Exhibit(
        "sweep", "length of the regulariser's perturbation", ("circles", "moons"),
        _RANDOM | _TOY_REGULARISERS, 10, 1, True, first_seed=100,
    ),
    "search-digits": Exhibit(
        "sweep", "search, sign, order and threshold", ("digits",), _BASELINES | _SEARCHES, 8,
        first_seed=100,
    ),
    "radius-digits": Exhibit(
        "sweep", "length of the perturbation", ("digits",),
        _BASELINES | _radii(0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0), 8, first_seed=100,
    ),
}  # fmt: skip


def exhibits_named(names: Sequence[str]) -> dict[str, Exhibit]:
    """The exhibits of these names, in their order; "all" are the paper's.

    Raises:
        ValueError: an unknown name.
    """
    chosen: dict[str, Exhibit] = {}
    for name in names:
        if name == "all":
            chosen |= {
                key: value for key, value in EXHIBITS.items() if key.startswith(("fig", "table"))
            }
        elif name in EXHIBITS:
            chosen[name] = EXHIBITS[name]
        else:
            near = difflib.get_close_matches(name, EXHIBITS, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"exhibit must be one of all, {', '.join(EXHIBITS)}; got {name!r}{hint}"
            )
    return chosen
