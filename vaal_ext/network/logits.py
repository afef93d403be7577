"""A network as a function from samples to logits, its input and its output checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from vaal_ext.checks import warn_caller
from vaal_ext.network.state import Model

__all__ = [
    "LogitsFn",
    "check_input",
    "finite_rows",
    "flattened",
    "forward_of",
    "warn_of_probabilities",
]

LogitsFn = Callable[[Any], Tensor]

# Code that makes the logits of two classes from z, the second one's logit, by z's dimensions.
_TWO_COLUMNS = {1: "torch.stack([0 * z, z], 1)", 2: "torch.cat([0 * z, z], 1)"}


# So many different logits do not all lie in [0, 1] by chance.
_ENOUGH_NUMBERS = 64


def forward_of(
    model: Model, logits_fn: LogitsFn | None, amp: torch.dtype | None = None
) -> Callable[[Tensor], Tensor]:
    """x [B, ...] -> logits [B, C], C >= 2: the model, under autocast to `amp` if given, checked.

    Without `logits_fn` an output with `.logits`, or a dict with "logits" (transformers' models),
    gives these. What the call returns raises TypeError where the logits are no floating tensor and
    ValueError where they have another shape. TypeError also if `model` or `logits_fn` cannot be
    called.
    """
    for name, function in (("model", model), ("logits_fn", logits_fn)):
        if not callable(function) and not (name == "logits_fn" and function is None):
            # As baal's ModelWrapper does.
            holds = name == "model" and callable(getattr(function, "model", None))
            hint = ", which holds a network: pass its .model" if holds else ""
            raise TypeError(f"{name} must be callable, got {type(function).__name__}{hint}")

    def forward(x: Tensor) -> Tensor:
        with nullcontext() if amp is None else torch.autocast(x.device.type, dtype=amp):
            output = model(x)
            logits = _logits_in(output) if logits_fn is None else logits_fn(output)
        if not isinstance(logits, Tensor):
            where = "the model" if logits_fn is None else "logits_fn"
            raise TypeError(
                f"{where} gave {type(logits).__name__} where logits [B, C] were expected: pass "
                "logits_fn= to take the logits out of the model's output, e.g. "
                "logits_fn=lambda output: output[0]"
            )
        if not logits.is_floating_point():
            raise TypeError(f"the logits must be floating point, got {logits.dtype}")
        if logits.shape in ((len(x),), (len(x), 1)):
            raise ValueError(
                "the logits must have shape [B, C] with a column for each of C >= 2 classes, got "
                f"{tuple(logits.shape)}, one number a sample. If it is the logit of a binary "
                f"classifier pass logits_fn=lambda z: {_TWO_COLUMNS[logits.ndim]}"
            )
        if logits.ndim != 2 or logits.shape[0] != x.shape[0] or logits.shape[1] == 0:
            raise ValueError(
                f"the logits must have shape [B, C] with B = {x.shape[0]} and C >= 2, got "
                f"{tuple(logits.shape)}"
            )
        return logits

    return forward


def _logits_in(output: Any) -> Any:
    """The output itself, or the "logits" that it holds under this name."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)


def warn_of_probabilities(model: Model, logits: Tensor) -> None:
    """Warns where every row of `logits` [B, C] is a probability distribution, or where they all lie
    in [0, 1], as after a sigmoid. Waits for the device.

    Logits could look so only by chance. Probabilities that are rounded to a relative eps add up to
    1 within eps; the softmax's own sum of C terms adds an error of about sqrt(C) eps.
    """
    rows = logits.detach()
    tolerance = torch.finfo(rows.dtype).eps * (4 + rows.shape[1] ** 0.5)
    off = (rows.sum(dim=1, dtype=torch.float64) - 1).abs()
    inside, adds_up = ((rows >= 0) & (rows <= 1)).all(), (off <= tolerance).all()
    inside, adds_up = torch.stack([inside, adds_up]).tolist()
    if len(rows) == 0 or not inside:
        return
    if not adds_up:
        # A sigmoid gives no 0, as a ReLU before the logits does. Copies of a sample count once.
        if bool((rows > 0).all()) and rows.unique().numel() >= _ENOUGH_NUMBERS:
            warn_caller(
                f"all {rows.numel()} outputs of the model that were looked at lie between 0 and 1, "
                "as after a sigmoid: a softmax is taken of them here, as of logits. If each is the "
                "probability of a class pass logits_fn=torch.logit; a sample with several labels "
                "has no LDR"
            )
        return
    modules = list(model.named_modules()) if isinstance(model, nn.Module) else []
    names = [name or "itself" for name, m in modules if isinstance(m, nn.Softmax | nn.Softmax2d)]
    where = f" (its module {names[-1]!r})" if names else ""
    warn_caller(
        f"the model gives probabilities, not logits: there is a softmax in it{where}, and a second "
        "one is taken here, so LDR, entropy and margin come out wrong. Take the softmax off, or "
        "pass logits_fn=torch.log"
    )


def flattened(x: Tensor) -> Tensor:
    """Samples [B, ...] of any dtype as [B, D]; also those of one number each, [B]."""
    return x.unsqueeze(-1).flatten(1)


def check_input(x: Any) -> None:
    """TypeError unless x is a floating tensor, ValueError unless it has a batch dimension."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(
            f"x must be floating point (a perturbation is added to it), got {x.dtype}: convert "
            "and scale it as the network expects its input, or for uint8 images pass "
            "LDRScorer(normalize=(mean, std))"
        )
    if x.ndim == 0:
        raise ValueError("x must have samples along its first dimension, got a scalar")


def finite_rows(logits: Tensor) -> Tensor:
    """bool [B]: no NaN, no +inf, not all -inf. A class at -inf is one ruled out, which is fine."""
    return torch.isfinite(logits.amax(dim=1))
