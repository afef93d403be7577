"""A recorder for the CPU that behaves as CUDA graphs do, where they differ from plain calls."""

from __future__ import annotations

import torch


class FakeRecorder:
    """Recording runs nothing; a replay writes its results over those of the replay before.

    Args:
        waits: for each eager run, whether it waits for the device; False for all that follow.
        failures: what each recording raises; None, and for all that follow, where it goes well.
    """

    def __init__(self, waits=(), failures=()):
        self.waits, self.failures = list(waits), list(failures)
        self.log = []

    def warm_up(self, function, *inputs):
        self.log.append(("eager", len(inputs[0])))
        outputs = function(*inputs)
        self._like = outputs
        return outputs, self.waits.pop(0) if self.waits else False

    def record(self, function, *inputs):
        self.log.append(("record", len(inputs[0])))
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        # Nothing has been computed yet: whoever reads these before a replay reads nonsense.
        outputs = tuple(torch.full_like(like, -77) for like in self._like)

        def replay():
            self.log.append(("replay", len(inputs[0])))
            for output, result in zip(outputs, function(*inputs), strict=True):
                output.copy_(result)

        return replay, outputs
