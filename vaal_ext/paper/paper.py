"""What the paper printed: test accuracy in percent, Tables II, III and IV.

The number of annotations counts the queried samples; the initial 100 labels come on top (Table I,
section IV.B.1: ten queries of 100 are 1000). Otherwise the tables' first column, 100, would stand
before any query, where all strategies are one; they are 8 points apart there.
"""

from __future__ import annotations

__all__ = ["ANNOTATIONS", "PRINTED"]

ANNOTATIONS = (100, 300, 500, 700, 1000)

# By data set and strategy; "entropy" is the paper's UNCERTAINTY.
PRINTED: dict[str, dict[str, tuple[float, ...]]] = {
    "mnist": {  # Table II
        "vaal": (91.16, 95.50, 96.89, 97.45, 97.85),
        "random": (87.29, 89.17, 91.00, 92.02, 94.71),
        "dfal": (88.04, 92.79, 95.69, 96.03, 96.81),
        "entropy": (83.26, 91.74, 94.73, 95.93, 96.82),
        "vaal+vat": (96.10, 97.55, 97.98, 98.29, 98.48),
    },
    "svhn": {  # Table III
        "vaal": (47.43, 62.01, 66.92, 71.83, 72.69),
        "random": (33.69, 40.73, 49.81, 57.09, 59.43),
        "dfal": (37.08, 58.37, 63.43, 67.27, 70.21),
        "entropy": (36.17, 52.57, 61.84, 62.28, 62.59),
        "vaal+vat": (45.35, 62.99, 68.46, 71.18, 73.66),
    },
    "cifar10": {  # Table IV
        "vaal": (31.63, 35.56, 37.62, 40.21, 42.97),
        "random": (31.09, 32.03, 33.72, 34.28, 37.03),
        "dfal": (27.28, 32.70, 34.42, 36.03, 39.12),
        "entropy": (25.64, 31.37, 33.51, 34.21, 35.74),
        "vaal+vat": (32.70, 36.41, 39.59, 41.70, 43.37),
    },
}
