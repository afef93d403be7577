"""A network is tested before it scores a pool: does it give logits, does it give the same ones
again, is its LDR more than noise? See :mod:`vaal_ext.pool.first_batch`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vaal_ext.checks import warn_caller
from vaal_ext.network.logits import warn_of_probabilities
from vaal_ext.perturbation.ldr import LDR
from vaal_ext.perturbation.measure import Posterior
from vaal_ext.pool.batch_run import AMP, BatchRun
from vaal_ext.pool.trials import rank_correlation

__all__ = ["SAMPLES", "Batch", "Lent", "look_at_network"]

T = TypeVar("T")
Batch = tuple[Tensor, Tensor]  # samples [B, ...], and an int64 [B] for each
Lent = Callable[[], AbstractContextManager[None]]

# How many samples are looked at.
SAMPLES = 64

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
# And below this one between method="direct" and two steps more. Measured on 1,000 samples (64 of
# them at a time are within 0.1 of it); in brackets the share of the top tenth after 8 steps:
#   PaperCNN on MNIST, 300 labels  eps 0.1: 1.00 (0.99), 0.5: 1.00 (0.96), 2: 0.83 (0.39)
#   digits, 100 labels             eps 0.1: 1.00 (0.98), 0.5: 0.97 (0.76), 1: 0.77 (0.39)
#   an untrained MLP of 20 inputs  eps 0.01: 0.93 (0.86), 0.5: 0.91 (0.79), 2: 0.66 (0.44)
_STEPS_CORRELATION = 0.95
# LDR that spread by less than this share of their largest are as good as equal.
_ALL_ALIKE = 1e-3
# Samples whose LDR is not 0, without which a correlation says little.
_ENOUGH = 48


def look_at_network(
    run: BatchRun,
    first: list[Batch],
    spread: Callable[[], list[Batch]] | None,
    lent: Lent,
) -> None:
    """Warns of outputs that are no logits, of logits that change from call to call or with the rest
    of the batch, and of noise.

    Costs three forwards of the first batch (of at most 64 samples), and, where LDR is measured and
    the pool has 64 samples, reading as many more and scoring these twice. Where the network fails
    on the way (out of memory, a program exported for one size of batch) the scoring itself tells,
    or goes on.

    Args:
        first: the pool's first samples [B, ...] and their identities int64 [B], some 64 in all.
        spread: gives such samples from all over the pool. Where that fails (a loader that may leave
            samples out, an image that cannot be read) the first ones stand for all. None where the
            pool has fewer, too few to tell noise.
        run, lent: see :meth:`vaal_ext.pool.first_batch.Looks.at`.
    """
    x, index = first[0]
    logits = _unless_it_fails(lambda: _three_forwards(run, x, index, lent))
    if logits is None:
        return
    warn_of_probabilities(run.model, logits[0])
    _warn_of_what_moves(run, *logits)
    measure = run.measure
    if not isinstance(measure, LDR) or spread is None:
        return
    with lent(), _random_states_kept():
        samples = _unless_it_fails(spread) or first
    other = _another_search(measure)
    correlation = _unless_it_fails(lambda: _between_searches(run, (measure, other), samples, lent))
    enough = _STEPS_CORRELATION if measure.search.method == "direct" else _RANK_CORRELATION
    if correlation is not None and correlation < enough:
        _warn_of_noise(measure, other, correlation, enough)


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Keeps the random states of NumPy and Python: reading a data set may draw from them."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _unless_it_fails(work: Callable[[], T]) -> T | None:
    try:
        return work()
    except Exception:
        return None


def _three_forwards(
    run: BatchRun, x: Tensor, index: Tensor, lent: Lent
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [B, C] of x, of x again, and of x with others in the place of all samples but `_kept`.

    The third begins with the random state that the first began with.
    """
    alone = replace(run, measure=Posterior())
    among_others = x.clone()
    others = torch.ones(len(x), dtype=torch.bool, device=x.device)
    others[_kept(len(x))] = False
    among_others[others] = x[_kept(len(x)).start]
    with lent():
        once, again = (alone(x, index).logits.clone() for _ in range(2))
    with lent():
        third = alone(among_others, index).logits.clone()
    return once, again, third


def _kept(size: int) -> slice:
    """Every second sample of a batch's middle half. At whatever distance a network mixes samples,
    and also if it wraps round the batch's end, one of these is mixed with a sample that is none of
    them. (Every second sample of the whole batch would only be mixed with its own kind at every
    even distance.)"""
    start = (size + 1) // 4
    return slice(start, max(start + 1, 3 * size // 4), 2)


def _warn_of_what_moves(run: BatchRun, once: Tensor, again: Tensor, among_others: Tensor) -> None:
    formats = [once.dtype, *(p.dtype for p in _floating_parameters(run.model))]
    if run.mode.amp is not None:
        formats.append(AMP[run.mode.amp] or once.dtype)
    coarsest = max(formats, key=lambda dtype: torch.finfo(dtype).eps)
    if _differ(once, again, coarsest):
        warn_caller(
            "the network gives other logits when it is asked again: something in it is random in "
            "eval mode, so its scores are noise"
            + _named(run.model, _is_dropout, "dropout that stays on")
            + ". Use the network without it (F.dropout needs training=self.training; baal's "
            "unpatch_module undoes patch_module)"
        )
    elif _differ(once[_kept(len(once))], among_others[_kept(len(once))], coarsest):
        warn_caller(
            "a sample's logits change with the other samples of its batch, so its score depends on "
            "the batch it is in"
            + _named(run.model, _is_batch_norm, "batch norm without running statistics")
            + ". Use layers that treat each sample by itself: batch norm with "
            "track_running_stats=True, or group norm"
        )
    half = coarsest.itemsize < 4 and run.mode.amp is None
    if half and run.measure.settings.get("method") == "finite-difference":
        warn_caller(
            f"the network computes in {str(coarsest).removeprefix('torch.')}, whose logits hardly "
            "resolve the step xi of method='finite-difference', so LDR ranks samples badly: "
            "convert the network to float32 (and pass amp= to run it in half precision where that "
            "does no harm), or take method='direct'"
        )


def _another_search(measure: LDR) -> LDR:
    """A second search, which ranks samples like the first where both find what they look for:
    another random start, or two steps more with method="direct", which has no start."""
    search = measure.search
    if search.method == "direct":
        more = replace(search, num_iters=cast(int, search.num_iters) + 2)
        return replace(measure, search=more)
    return replace(measure, seed=(int(measure.seed) + 1) % 2**63)


def _between_searches(
    run: BatchRun, searches: tuple[LDR, LDR], samples: list[Batch], lent: Lent
) -> float | None:
    """Spearman's correlation of LDR between two searches; None where most samples are flat."""
    scores = []
    for measure in searches:
        with lent():
            tried = replace(run, measure=measure)
            table = torch.cat([tried(x, index).table for x, index in samples])
        ldr, flat = (table[:, tried.columns.index(name)] for name in ("value", "failed"))
        scores.append(ldr.masked_fill(flat == 1, torch.nan).cpu().numpy())
    known = np.isfinite(scores[0]) & np.isfinite(scores[1])
    one, two = (ldr[known] for ldr in scores)
    # Samples that are copies of each other differ by rounding alone: there is nothing to rank.
    if len(one) < _ENOUGH or np.ptp(one) <= _ALL_ALIKE * one.max():
        return None
    return rank_correlation(one, two)


def _warn_of_noise(measure: LDR, other: LDR, correlation: float, enough: float) -> None:
    # One digit, so that the rounds of a loop say the same and Python shows it once.
    found = f"(Spearman's correlation {max(correlation, 0.0):.1f}, wanted: {enough:g} or more)"
    search = measure.search
    if search.method == "direct":
        warn_caller(
            "LDR ranks samples of the pool otherwise once its search goes two steps further "
            f"{found}: at this eps, or with so broad a posterior, one step does not find the worst "
            f"perturbation. Take num_iters={other.search.num_iters} (for each step a forward and "
            "a backward more), or a smaller eps"
        )
        return
    advice = [
        (True, "method='direct', which has no random start"),
        (search.sign != "max", "sign='max'"),
        (True, f"more iterations (num_iters={4 * cast(int, search.num_iters)})"),
        (True, "a smaller eps"),
    ]
    warn_caller(
        "LDR is mostly noise here: from other random starts samples of the pool rank otherwise "
        f"{found}. What steadies it: " + ", ".join(text for holds, text in advice if holds)
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
    """Whether it is dropout from another library: torch's own is off in eval mode."""
    kind = type(module)
    return "dropout" in kind.__name__.lower() and kind.__module__ != "torch.nn.modules.dropout"


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is None
