"""`vaal-ext info`: what was built, and what it runs on."""

from __future__ import annotations

__all__ = ["info"]


def info() -> None:
    """Print versions, libraries, architectures and devices."""
    from vaal_ext.cli.work.info import describe

    for what, value in describe():
        print(f"{what + ':':<28}{value}")
