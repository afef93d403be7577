"""Words that tables, figures and messages share."""

from __future__ import annotations

__all__ = ["counted"]


def counted(n: int, what: str) -> str:
    """1, "seed" -> "1 seed"; 2, "seed" -> "2 seeds"."""
    return f"{n} {what}{'' if n == 1 else 's'}"
