"""One batch through the network: samples in, the columns of their scores out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available

from vaal_ext.backend import load_backend
from vaal_ext.network.inner_point import Encode, InnerPoint
from vaal_ext.network.logits import LogitsFn, check_input, forward_of
from vaal_ext.network.pixels import PixelScale
from vaal_ext.network.state import Model
from vaal_ext.perturbation.measure import Measure

__all__ = ["AMP", "BatchRun", "BatchScores", "Mode"]

AMP = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}

_SUMMARY = ("pseudo_label", "entropy", "margin")


@dataclass(frozen=True)
class Mode:
    """How the network runs: `amp` None, "bf16" or "fp16"; inputs [B, C, H, W] in channels_last."""

    amp: str | None = None
    channels_last: bool = False

    def __str__(self) -> str:
        return (self.amp or "float32") + (" channels_last" if self.channels_last else "")


class BatchScores(NamedTuple):
    """The results of a batch, on the device.

    Attributes:
        table: [B, K], the run's columns. In one table they take one copy to the host. It is float64
            where the logits are, else float32, which holds every label below 2^24 exactly.
        logits: [B, C], the clean ones.
    """

    table: Tensor
    logits: Tensor


@dataclass(frozen=True)
class BatchRun:
    """Runs batches through the network.

    Attributes:
        model, logits_fn: see :func:`vaal_ext.ldr_scores`.
        device: where the network runs.
        measure: what is measured of a batch.
        backend: "fused" or "reference", for the posterior's summary.
        pixels: what turns uint8 samples into the network's input, or None where they are floating.
        encode: what comes before the point that is perturbed, or None where that is the input.
        mode: the number format and memory format.
        curvature: whether the clean posterior's curvature is computed: the largest eigenvalue of
            diag(p) - ppᵀ.
    """

    model: Model
    logits_fn: LogitsFn | None
    device: torch.device
    measure: Measure
    backend: str
    pixels: PixelScale | None
    encode: Encode | None = None
    mode: Mode = Mode()
    curvature: bool = False

    @property
    def columns(self) -> list[str]:
        """What the table holds: the clean posterior's summary; the measure, NaN where something on
        the way was not finite, and where it failed, if it has values; the clean posterior's
        curvature, if it is asked for."""
        measured = ["value", "failed"] if self.measure.column else []
        return [*_SUMMARY, *measured, *(["curvature"] if self.curvature else [])]

    def check(self, x: Tensor) -> None:
        """TypeError or ValueError where x is no [B, ...]: uint8 with `pixels`, else floating."""
        if self.pixels is not None:
            self.pixels.check(x)
        elif self.encode is None:
            check_input(x)

    def __call__(self, x: Tensor, index: Tensor) -> BatchScores:
        """x [B, ...] on any device, B >= 1; index int64 [B] likewise: it keys their starts.

        An autocast region around the call has no say: `mode` is the number format.
        """
        x = x.detach().to(self.device)  # bytes as bytes
        with _no_autocast(x.device.type):
            if self.pixels is not None:
                x = self.pixels.input(x)
            if self.mode.channels_last:
                # x.contiguous() would leave the strides of a single channel as they are, and torch
                # chooses its kernels by these.
                x = torch.empty_like(x, memory_format=torch.channels_last).copy_(x)
            model, mask = self.model, None
            if self.encode is not None:
                inner = InnerPoint.of(self.encode, x)
                model, x, mask = inner.model_from(model), inner.point, inner.mask
            forward = forward_of(model, self.logits_fn, AMP[self.mode.amp])
            logits, value, failed = self.measure.run(forward, x, index.to(self.device), mask)
            with torch.no_grad():
                ops = load_backend(self.backend)
                columns = [*ops.posterior_summary(logits)]
                if value is not None and failed is not None:
                    columns += [value, failed]
                if self.curvature:
                    columns.append(ops.fisher_direction(logits)[1])
                wide = [column.to(columns[1].dtype) for column in columns]  # the entropy's
                return BatchScores(torch.stack(wide, dim=1), logits)


def _no_autocast(device_type: str) -> AbstractContextManager[Any]:
    if not is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
