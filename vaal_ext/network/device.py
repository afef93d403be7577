"""A device by its name."""

from __future__ import annotations

import torch

__all__ = ["device_named"]


def device_named(name: torch.device | str | None) -> torch.device:
    """The device "cpu", "cuda" or "cuda:1", one that is there; for None cuda where there is one.

    Raises:
        TypeError: no name. ValueError: another kind of device, or one that is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {str(name)!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {name}: torch sees {torch.cuda.device_count()}")
    return device
