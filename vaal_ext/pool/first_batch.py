"""What the first samples of a pool tell before it is scored: warnings of what goes wrong silently.

Scores, random states and buffers are what they are without these looks. At most 64 samples are
looked at, in pieces no larger than the pool's own batches.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vaal_ext.checks import warn_caller
from vaal_ext.forward import warn_of_probabilities
from vaal_ext.pool.execution import AMP, BatchRun
from vaal_ext.pool.trial import Mode, rank_correlation
from vaal_ext.power_iteration import PowerIteration

__all__ = ["Looks"]

T = TypeVar("T")
Batch = tuple[Tensor, Tensor]  # samples [B, ...], and an int64 [B] for each
Lent = Callable[[], AbstractContextManager[None]]

# So many samples are looked at.
_SAMPLES = 64

# Below this rank correlation between two random starts a query is a matter of luck. Measured with 5
# iterations and sign="paper" on 64 samples at a time (range over such parts of a pool), with xi a
# tenth of eps; in brackets what two seeds have in common of the top tenth of the pool:
#   PaperCNN on MNIST, 300 labels: eps 0.1         0.99 to 1.00 (0.92)
#                                  small_radius    0.98 to 0.99 (0.86)
#                                  eps 1           0.66 to 0.85 (0.61)
#                                  xi = eps = 2    0.42 to 0.71 (0.65)
#   the README's first example                     0.84 to 0.92 (0.84)
#   an untrained MLP on MNIST, small_radius        0.16 to 0.51 (0.35)
#   ResNet-18 on normalised CIFAR-10, 300 labels, small_radius: 0.03 to 0.62 (0.52); the whole pool
#   of 256: 0.35, with 20 iterations 0.34, with a tenfold xi 0.28, method="fisher" 0.38; but with
#   sign="max" 0.99, as finite differences and as "fisher".
_RANK_CORRELATION = 0.7
# Samples whose LDR is not 0, without which a correlation says little.
_ENOUGH = 48

# The kinds of input that have been told of in this process.
_told: set[str] = set()

# What a byte can hold, and what no image in [0, 1] or of zero mean and unit deviation comes near.
_BYTE, _BEYOND_UNIT_SCALE = 255.0, 128.0


class Looks:
    """The looks of one scorer: at the first samples of every pool, and at its network once."""

    def __init__(self) -> None:
        self._expected = False
        self._network_seen = False

    def expect(self) -> None:
        """Has the next batches looked at; without this call there is no look."""
        self._expected = True

    def at(
        self,
        run: BatchRun,
        batches: Iterator[Batch],
        index: np.ndarray,
        mode: Mode,
        lent: Lent,
        tell: bool,
    ) -> Iterator[Batch]:
        """The same batches, once the first samples in them have been looked at.

        Args:
            run: how batches are run, in the network's eval mode.
            batches: samples with their positions in `index`, int64 [N], which has their identities.
            mode: of the run.
            lent: a context that gives the network back as it came, random states included.
            tell: whether to print what the network gets.

        Raises:
            TypeError, ValueError: see :meth:`BatchRun.check`.
        """
        if not self._expected:
            return batches
        self._expected = False
        first, batches = _ahead(batches)
        for x, _ in first:
            run.check(x)
        if first and first[0][0].layout == torch.strided:
            if tell:
                _tell_input(run, first[0][0])
            _look_at_input(run, first[0][0])
        if first and not self._network_seen:
            self._network_seen = True
            keyed = [(x, torch.from_numpy(index[position.numpy()])) for x, position in first]
            _look_at_network(run, keyed, mode, lent)
        return batches


def _ahead(batches: Iterator[Batch]) -> tuple[list[Batch], Iterator[Batch]]:
    """The first 64 samples, as the batches bring them; and all the batches, from the first on."""
    read: deque[Batch] = deque()
    count = 0
    for batch in batches:
        read.append(batch)
        count += len(batch[0])
        if count >= _SAMPLES:
            break
    first, left = [], _SAMPLES
    for x, position in read:
        first.append((x[:left], position[:left]))
        left -= len(first[-1][0])

    def from_the_first_on() -> Iterator[Batch]:
        while read:
            yield read.popleft()  # and let it go
        yield from batches

    return first, from_the_first_on()


def _tell_input(run: BatchRun, x: Tensor) -> None:
    """Prints on stderr what the network gets of the samples x [B, ...], one line.

    Shape, dtype, range, mean and deviation; once for samples of one kind (shape, dtype and range to
    a digit), so that the rounds of a loop do not repeat it.
    """
    seen = x.detach().to(run.device)
    if run.pixels is not None:
        seen = run.pixels.input(seen)
    values = seen.double()
    low, high = values.min().item(), values.max().item()
    who = "the network" if run.encode is None else "encode"
    what = f"{who} gets {str(seen.dtype).removeprefix('torch.')} {list(seen.shape[1:])}"
    kind = f"{what}: {low:.0e} to {high:.0e}"
    if kind in _told:
        return
    _told.add(kind)
    deviation = values.std(correction=0).item()
    print(
        f"{what}: {low:.3g} to {high:.3g}, mean {values.mean().item():.3g}, standard deviation "
        f"{deviation:.3g} (the first {len(seen)} samples)",
        file=sys.stderr,
    )


def _look_at_input(run: BatchRun, x: Tensor) -> None:
    """Warns of samples x [B, ...] that look like bytes which nobody has scaled."""
    if run.pixels is not None or run.encode is not None or x.ndim < 3:
        return
    low, high = x.min().item(), x.max().item()
    if low >= 0 and _BEYOND_UNIT_SCALE < high <= _BYTE:
        warn_caller(
            f"the network gets images with values from {low:.3g} to {high:.3g}, as bytes have them:"
            " if it was trained on images in [0, 1], or on normalised ones, its scores are "
            "meaningless. Scale them as it was trained, or keep them as uint8 and pass "
            "normalize=(mean, std)"
        )


def _look_at_network(
    run: BatchRun,
    first: list[Batch],
    mode: Mode,
    lent: Lent,
) -> None:
    """Warns of outputs that are no logits, of a network that is not still, and of noise.

    Costs three forwards of the first batch (of at most 64 samples), and, where LDR is measured and
    there are 64 samples, scoring these twice. Where the network fails on the way (out of memory, a
    program exported for one size of batch) the scoring itself tells, or goes on.

    Args:
        first: samples [B, ...] and their identities int64 [B], some 64 in all.
        run, mode, lent: see :meth:`Looks.at`.
    """
    x, index = first[0]
    logits = _unless_it_fails(lambda: _three_forwards(run, x, index, mode, lent))
    if logits is None:
        return
    warn_of_probabilities(run.model, logits[0])
    _warn_of_what_moves(run, mode, *logits)
    settings = run.probe
    if not isinstance(settings, PowerIteration) or sum(len(x) for x, _ in first) < _SAMPLES:
        return
    correlation = _unless_it_fails(lambda: _between_starts(run, settings, first, mode, lent))
    if correlation is not None and correlation < _RANK_CORRELATION:
        _warn_of_noise(settings, correlation)


def _unless_it_fails(work: Callable[[], T]) -> T | None:
    try:
        return work()
    except Exception:
        return None


def _three_forwards(
    run: BatchRun, x: Tensor, index: Tensor, mode: Mode, lent: Lent
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [B, C] of x, of x again, and of x with others in the place of every second sample.

    The third begins with the random state that the first began with.
    """
    alone = replace(run, probe=None)
    among_others = x.clone()
    among_others[1::2] = x[0]
    with lent():
        once, again = (alone(x, index, mode).logits.clone() for _ in range(2))
    with lent():
        third = alone(among_others, index, mode).logits.clone()
    return once, again, third


def _warn_of_what_moves(
    run: BatchRun, mode: Mode, once: Tensor, again: Tensor, among_others: Tensor
) -> None:
    formats = [once.dtype, *(p.dtype for p in _floating_parameters(run.model))]
    if mode.amp is not None:
        formats.append(AMP[mode.amp] or once.dtype)
    coarsest = max(formats, key=lambda dtype: torch.finfo(dtype).eps)
    if _differ(once, again, coarsest):
        warn_caller(
            "the network gives other logits when it is asked again: something in it is random in "
            "eval mode, so its scores are noise"
            + _named(run.model, _is_dropout, "dropout that stays on")
            + ". Use the network without it (F.dropout needs training=self.training; baal's "
            "unpatch_module undoes patch_module)"
        )
    elif _differ(once[::2], among_others[::2], coarsest):
        warn_caller(
            "a sample's logits change with the other samples of its batch, so its score depends on "
            "the batch it is in"
            + _named(run.model, _is_batch_norm, "batch norm without running statistics")
            + ". Use layers that treat each sample by itself: batch norm with "
            "track_running_stats=True, or group norm"
        )
    half = coarsest.itemsize < 4 and mode.amp is None
    if half and getattr(run.probe, "method", None) == "finite-difference":
        warn_caller(
            f"the network computes in {str(coarsest).removeprefix('torch.')}, whose logits hardly "
            "resolve the step xi of method='finite-difference', so LDR ranks samples badly: "
            "convert the network to float32 (and pass amp= to run it in half precision where that "
            "does no harm), or take method='fisher'"
        )


def _between_starts(
    run: BatchRun, settings: PowerIteration, first: list[Batch], mode: Mode, lent: Lent
) -> float | None:
    """Spearman's correlation of LDR between two random starts; None where most samples are flat."""
    scores = []
    for seed in (settings.seed, (settings.seed + 1) % 2**63):
        other = replace(run, probe=replace(settings, seed=int(seed)))
        with lent():
            found = [other(x, index, mode) for x, index in first]
        ldr = torch.cat([roughness.ldr for roughness in found])
        flat = torch.cat([roughness.flat for roughness in found])
        scores.append(ldr.double().masked_fill(flat, torch.nan).cpu().numpy())
    known = np.isfinite(scores[0]) & np.isfinite(scores[1])
    return rank_correlation(scores[0][known], scores[1][known]) if known.sum() >= _ENOUGH else None


def _warn_of_noise(settings: PowerIteration, correlation: float) -> None:
    advice = [
        (settings.sign != "max", "sign='max' (which helps most)"),
        (settings.method != "fisher", "method='fisher'"),
        (True, f"more iterations (num_iters={4 * settings.num_iters})"),
        (True, "a smaller eps"),
    ]
    # One digit, so that the rounds of a loop say the same and Python shows it once.
    warn_caller(
        "LDR is mostly noise here: from other random starts the first samples of the pool rank "
        f"otherwise (Spearman's correlation {max(correlation, 0.0):.1f}). What steadies it: "
        + ", ".join(text for holds, text in advice if holds)
    )


def _floating_parameters(model: Any) -> list[Tensor]:
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    return [parameter for parameter in parameters if parameter.is_floating_point()]


def _differ(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits a and b [B, C] of a network that computes in `dtype` differ beyond rounding.

    Both come from batches of one shape, so the same kernels ran on the same places, and a network
    that is still gives the same bits. What may differ all the same is the order of some sums (in
    atomic additions, or between threads): single roundings, of a relative eps each, that add up
    like a random walk. A quarter of sqrt(eps) would take (1/16)/eps of them: 500,000 in float32, 64
    in float16 and 8 in bfloat16, each as large as the logits. (Products in TF32 count as float32:
    they are rounded to TF32 the same way each time, and added up in float32.) With a ResNet-18 on
    CIFAR-10 in float32 and under autocast to bfloat16, 7 and 64 samples: still 0; with dropout of
    0.1 before the last layer 0.13; with batch norm's own statistics 0.63 to 0.69. The threshold is
    9e-5 in float32, 8e-3 in float16 and 0.022 in bfloat16.
    """
    finite = torch.isfinite(a) & torch.isfinite(b)
    a, b = (z.double().masked_fill(~finite, 0.0) for z in (a, b))
    a, b = (z - z.mean(dim=1, keepdim=True) for z in (a, b))  # the softmax does not see the mean
    share = 0.25 * torch.finfo(dtype).eps ** 0.5
    return bool((a - b).square().mean().sqrt() > share * a.square().mean().sqrt())


def _named(model: Any, is_culprit: Callable[[nn.Module], bool], what: str) -> str:
    """The culprits among the model's modules, in brackets; nothing where none is recognised."""
    modules = model.named_modules() if isinstance(model, nn.Module) else []
    names = [name or "itself" for name, module in modules if is_culprit(module)]
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" ({what}: {', '.join(names[:3])}{more})"


def _is_dropout(module: nn.Module) -> bool:
    """Dropout of somebody else's: torch's own is off in eval mode."""
    kind = type(module)
    return "dropout" in kind.__name__.lower() and kind.__module__ != "torch.nn.modules.dropout"


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is None
