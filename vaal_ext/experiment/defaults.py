"""What a run uses unless told otherwise: a row of settings for each data set, and presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from vaal_ext.experiment.datasets.names import DATASET_NAMES, unknown_name

__all__ = ["PRESETS", "SETTINGS", "Settings", "run_settings", "settings_for"]


@dataclass(frozen=True)
class Settings:
    """What a run uses unless told otherwise. The optimiser is Adam, with torch's other defaults.

    ``steps`` is the number of optimiser steps of one training, that is of one round; ``eps`` is in
    the units of the network's input, as are ``xi`` and ``num_iters`` of the paper's search, which
    method="finite-difference" takes. ``vat_weight`` (λ of Eq. 3) and the other
    ``vat_`` are the regulariser's, for strategies that end in ``+vat``.
    """

    learning_rate: float
    steps: int
    batch_size: int
    xi: float
    eps: float
    num_iters: int
    percentile: float
    initial: int
    query_size: int
    vat_weight: float = 1.0  # paper, IV.C
    vat_xi: float = 0.01  # a tenth of vat_eps
    vat_eps: float = 0.1  # as eps; not tried where a row says nothing of it
    vat_num_iters: int = 1  # custom in VAT
    vat_decay: float = 0.0  # a constant rate; not tried where a row says nothing of it
    vat_steps: int | None = None  # in place of `steps`; None: the same


# "paper" names the section of the paper a number comes from. The rest is custom, or was tried out:
# benchmarks/RESULTS.md, "How the settings were chosen".
_TOY = Settings(
    learning_rate=1e-3,  # Adam's default
    steps=100,
    batch_size=32,
    xi=0.002,  # a tenth of eps
    eps=0.02,  # small_radius
    num_iters=5,  # paper, IV.A
    percentile=70.0,  # paper, IV.A
    initial=10,  # paper, IV.A
    query_size=10,  # paper, IV.A
)

# A starting point for data of your own: features of about unit scale, or pixels in [0, 1]. For a
# query by vaal eps and xi are measured instead, see ``experiment.config.with_lengths``.
_OWN = Settings(
    learning_rate=1e-3,
    steps=500,
    batch_size=32,
    xi=0.01,  # a tenth of eps
    eps=0.1,
    num_iters=5,  # paper, IV.B.2 and IV.C
    percentile=90.0,  # paper, IV.B.1 and IV.C
    initial=20,
    query_size=20,
)

# For Fashion-MNIST, which the paper does not have, these are MNIST's.
_IMAGES = replace(
    _OWN,
    initial=100,  # paper, Table I
    query_size=100,  # paper, IV.B.1
)

SETTINGS = {
    "moons": replace(_TOY, vat_xi=0.02, vat_eps=0.2),
    "circles": replace(_TOY, vat_xi=0.0005, vat_eps=0.005),
    "moons-100": _TOY,
    "circles-100": _TOY,
    "digits": replace(_OWN, learning_rate=3e-3, steps=100, query_size=10),  # initial: two a class
    "mnist": replace(_IMAGES, vat_xi=0.1, vat_eps=1.0, vat_decay=0.5, vat_steps=1000),
    "fashion-mnist": replace(_IMAGES, vat_xi=0.03, vat_eps=0.3, vat_decay=0.5),
    "svhn": _IMAGES,  # not tried out: no validation run yet
    "cifar10": _IMAGES,
    "npz": _OWN,
    "folder": _OWN,
}


# "paper": its power iteration and its one number for both lengths (section III.A), its Ip (IV.B.2)
# and its PRT (IV.B.1). The regulariser has the query's: the paper computes one LDR for both.
PRESETS = {
    "paper": {
        "method": "finite-difference", "xi": 2.0, "eps": 2.0, "num_iters": 5, "percentile": 90.0,
        "vat_method": "finite-difference", "vat_xi": 2.0, "vat_eps": 2.0, "vat_num_iters": 5,
    }
}  # fmt: skip


def settings_for(dataset: str) -> Settings:
    """The settings of a data set by its name; ``npz:PATH`` has the row ``npz``, and so on.

    Raises:
        ValueError: no such data set.
    """
    kind = dataset.split(":", 1)[0]
    if kind not in SETTINGS:
        raise unknown_name(dataset, DATASET_NAMES)
    return SETTINGS[kind]


def run_settings(dataset: str, regularised: bool) -> dict[str, Any]:
    """The data set's row as fields of :class:`~vaal_ext.experiment.config.RunConfig`.

    With the regulariser `steps` is the row's vat_steps, if it has any; without it the fields have
    no setting of the regulariser. ValueError as in :func:`settings_for`.
    """
    row = asdict(settings_for(dataset))
    vat_steps = row.pop("vat_steps")
    if not regularised:
        return {name: value for name, value in row.items() if not name.startswith("vat_")}
    return row | {"steps": vat_steps or row["steps"]}
