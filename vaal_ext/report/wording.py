"""Words and forms that tables, figures and messages share."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["counted", "markdown"]


def counted(n: int, what: str, several: str | None = None) -> str:
    """1, "seed" -> "1 seed"; 2, "seed" -> "2 seeds"; 2, "query", "queries" -> "2 queries"."""
    return f"{n} {what if n == 1 else several or what + 's'}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose head is the first line."""
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    head, *body = ["| " + " | ".join(line) + " |" for line in escaped]
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body])
