"""Words and forms that tables, figures and messages share."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown"]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose head is the first line."""
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    head, *body = ["| " + " | ".join(line) + " |" for line in escaped]
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body])
