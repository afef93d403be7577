"""LDR only for the samples that can rank above a percentile: the others are left out unscored.

For a short r the divergence is r·JᵀFJ·r, J the Jacobian of the logits and F = diag(p) - ppᵀ, so
that LDR is λ·eps² times a gain: λ the largest eigenvalue of F, which the clean forward gives, and
the gain what the network's gradient makes of it, by and large a squared gradient norm. λ spans
many orders of magnitude over a pool and the gain one or two, so LDR is large where λ is. The screen
takes the samples in falling order of λ until even the largest gain so far would not lift the next
one to the threshold. An audit sees to it that nothing is missed: samples drawn at random from the
whole pool are scored in any case, and the turns go on as long as one of those that rank above has
no larger λ than what is left. It is scored first, because it also tells whether the falling order
is worth its forward pass over the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

import numpy as np

from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.selection import candidate_count

__all__ = ["Screen", "audit_size", "screen_pays"]

# With this probability the audit finds out that more candidates were missed than `miss` allows.
_CONFIDENCE = 0.95

# A further step takes at most this share of what is already scored, and at least half of that: so
# pools are read in few pieces, and few samples are scored in vain.
_STEP = 1 / 8

# Once this share of the falling order is scored, all of it is: leaving out the rest would save
# little.
_TOO_MUCH = 2 / 3

# Samples that are likely to be scored, as a multiple of the K above the percentile. Measured on
# MNIST at eps 0.1 with the paper's CNN (100, 300 and 1,000 labels, 90th percentile): the last of
# the K came at place 1.9, 1.4 and 1.4 K in falling order of λ, and 2.2, 1.6 and 1.5 K were scored.
_LIKELY = 1.5

# A screen that saves less than this share is not worth its smaller batches.
_WORTH = 0.85


def _candidates(above: float, size: int) -> int:
    """How many of `size` different scores rank above the percentile."""
    return size - candidate_count(above, size) + 1


def audit_size(size: int, missed: int) -> int:
    """How many of `size` samples must be drawn at random to hold, with a probability of 95 %, at
    least one of some missed + 1 that are fixed beforehand.

    These are the missed + 1 candidates with the smallest λ. If the screen left out more than
    `missed` candidates, all of these would be among them, and in 95 of 100 pools the audit would
    hold one; but the screen leaves out nothing whose λ is as large as that of a candidate that the
    audit holds.
    """
    if size <= missed:
        return 0
    i = np.arange(missed + 1)

    def unseen(drawn: int) -> float:
        return float(np.prod(np.maximum(size - drawn - i, 0) / (size - i)))

    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        if unseen(middle) <= 1 - _CONFIDENCE:
            high = middle
        else:
            low = middle + 1
    return low


def screen_pays(size: int, above: float, miss: float, settings: SearchSettings) -> bool:
    """Whether a screened run of a pool of `size` samples is likely to cost less than a full one."""
    if size == 0:
        return False
    candidates = _candidates(above, size)
    audit = audit_size(size, int(miss * candidates))
    passes, likely = _passes(settings), min(1.0, _LIKELY * candidates / size)
    return audit * passes + (size - audit) * (1 + likely * passes) < _WORTH * passes * size


def _passes(settings: SearchSettings) -> int:
    """Passes through the network for one LDR; a gradient by the input counts as a forward."""
    return 2 * cast(int, settings.num_iters) + 3 + (settings.sign != "paper")


class Screen:
    """Which samples of a pool are scored, turn by turn.

    Args:
        index: int64 [N], the samples' identities, and
        seed: which fix between them what the audit draws.
        above: the percentile, and
        miss: the share of the samples above it that may be missed.
        settings: of the search, which say what an LDR costs.

    Attributes:
        ldr: float32 [N]; the caller fills it in after every turn of that name. NaN elsewhere.
        curvature: λ, float32 [N], filled in after every turn; NaN where a sample has no logits.
        scored: bool [N], True where LDR has been asked for.
        threshold: once the turns are over, the LDR from which on a sample ranks above the
            percentile; None where all samples have been scored.
        reason: why all samples were scored after all, which is how it was found out that λ does not
            tell where LDR is large; "" where it does.
    """

    def __init__(
        self, index: np.ndarray, *, seed: int, above: float, miss: float, settings: SearchSettings
    ) -> None:
        size = len(index)
        self.ldr = np.full(size, np.nan, dtype=np.float32)
        self.curvature = np.full(size, np.nan, dtype=np.float32)
        self.scored = np.zeros(size, dtype=bool)
        self.threshold: float | None = None
        self.reason = ""
        self._above = above
        self._passes = _passes(settings)
        by_chance = np.argsort(_shuffled(index, seed), kind="stable")
        self._audit = by_chance[: audit_size(size, int(miss * _candidates(above, size)))]
        # The samples of the audit are no part of the falling order of λ, which they do not need.
        self._order = self._audit[:0]
        self._falling = np.zeros(0)

    def turns(self) -> Iterator[tuple[Literal["curvature", "ldr"], np.ndarray]]:
        """Yields what is to be measured next, and the positions of the samples, int64 [M].

        The first turn asks for the audit's LDR. The second asks for all others: for their
        curvature, or, where the audit says that too many of them would follow, for their LDR.
        """
        self.scored[self._audit] = True
        yield "ldr", self._audit
        others = np.flatnonzero(~self.scored)
        share = self._share_to_score()
        if 1 + share * self._passes < _WORTH * self._passes:
            yield "curvature", others
            there = others[~np.isnan(self.curvature[others])]
            self._order = there[np.argsort(-self.curvature[there], kind="stable")]
            # In float64: λ may be so small that a quotient by it is beyond float32.
            self._falling = self.curvature[self._order].astype(float)
            for turn in self._falling_turns():
                self.scored[turn] = True
                yield "ldr", turn
            if not self.reason and not self.scored[self._order].all():
                self.threshold = self._threshold()
                return
            others = self._order[~self.scored[self._order]]
        else:
            self.reason = (
                f"in a random audit {100 * share:.0f} % had to be scored to find all that rank "
                "above"
            )
        self.scored[others] = True
        if len(others):
            yield "ldr", others

    def _share_to_score(self) -> float:
        """Which share of the audit's own falling order holds all of the audit that rank above, and
        is scored by the rule of the turns."""
        audit = self._audit[~np.isnan(self.ldr[self._audit])]
        size = len(audit)
        if size == 0:
            return 0.0
        audit = audit[np.argsort(-self.curvature[audit], kind="stable")]
        ldr, falling = self.ldr[audit].astype(float), self.curvature[audit].astype(float)
        count = _candidates(self._above, size)
        threshold = np.partition(ldr, -count)[-count]
        last = int(np.flatnonzero(ldr >= threshold)[-1])
        # After place i the turns are over if the next one would not reach the threshold.
        largest = np.maximum.accumulate(_gain(ldr, falling))
        with np.errstate(invalid="ignore"):  # 0 times inf, where a λ of 0 has an LDR: not a reach
            over = np.append(~(falling[1:] * largest[:-1] > threshold), True)
        over[:last] = False
        return float(np.argmax(over) + 1) / size

    def _falling_turns(self) -> Iterator[np.ndarray]:
        """The samples in falling order of λ, as far as they can reach the threshold."""
        order = self._order
        if len(order) == 0:
            return
        done, step = 0, _candidates(self._above, len(order))
        while True:
            yield order[done : done + step]
            done = min(done + step, len(order))
            if done >= _TOO_MUCH * len(order):
                self.reason = "two thirds of the others did not hold all that ranks above"
                return
            follow = self._to_follow(done)
            if follow == 0:
                return
            step = max(1, int(_STEP * done / 2), min(follow, int(_STEP * done)))

    def _count(self) -> int:
        """How many samples rank above the percentile; those whose LDR is not finite do not count
        into the pool."""
        failed = int(np.count_nonzero(self.scored & np.isnan(self.ldr)))
        return _candidates(self._above, max(1, len(self._order) + len(self._audit) - failed))

    def _threshold(self) -> float:
        known = self.ldr[self.scored & ~np.isnan(self.ldr)]
        count = self._count()
        return float(np.partition(known, -count)[-count]) if len(known) >= count else np.nan

    def _to_follow(self, done: int) -> int:
        """How many of the samples from place `done` on are to be scored: those that would reach the
        threshold if each had the largest gain seen so far, and those whose λ is no smaller than
        that of some sample of the audit that ranks above."""
        threshold = self._threshold()
        if np.isnan(threshold):  # fewer have an LDR than rank above: also a λ of 0 is needed
            return len(self._order) - done
        following = self._falling[done:]
        seen = self.scored & (self.curvature >= self._falling[done - 1])
        gains = _gain(self.ldr[seen].astype(float), self.curvature[seen].astype(float))
        gain = gains.max(initial=0.0)  # none, where all of these failed
        ranked = self._audit[self.ldr[self._audit] >= threshold]
        least = self.curvature[ranked].min(initial=np.inf)
        with np.errstate(invalid="ignore"):  # 0 times inf, where a λ of 0 has an LDR: not a reach
            return int(np.count_nonzero((following * gain > threshold) | (following >= least)))


def _gain(ldr: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """ldr/λ, float64 [M]; 0 where LDR is 0 or NaN."""
    with np.errstate(divide="ignore"):
        gain = np.divide(ldr, curvature, out=np.zeros(len(ldr)), where=ldr > 0)
    return cast(np.ndarray, gain)


def _shuffled(index: np.ndarray, seed: int) -> np.ndarray:
    """A pseudo-random number for each identity, uint64 [M], to sort them by."""
    with np.errstate(over="ignore"):
        return _mixed(_mixed(np.array([seed], dtype=np.uint64)) + index.astype(np.uint64))


def _mixed(z: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014), uint64 [M]."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return cast(np.ndarray, z ^ (z >> np.uint64(31)))
