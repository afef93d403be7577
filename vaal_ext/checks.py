"""What several rooms ask of their arguments."""

from __future__ import annotations

import numbers
from typing import Any

__all__ = ["require_int"]


def require_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    """TypeError unless value is an int (and no bool), ValueError unless low <= value <= high."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < low or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be {span}, got {value}")
