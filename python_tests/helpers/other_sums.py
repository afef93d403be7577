"""A stand-in for another processor: products are summed in another order.

``pytest -p other_sums -m rounding``, with the number of the processor in VAAL_TEST_PROCESSOR. Every
Linear and convolution, and the gradient of its output, is off by up to two units in the last place
of the largest number of its sample. As on a real processor the errors are the same whenever the
same batch comes again, and others in a batch of another size.

``python python_tests/helpers/other_sums.py`` prints how far LDR moves, by method: over 100 of them,
and over the instruction sets that libraries are told of in test_other_processors.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_ULPS = 2.0


@torch.no_grad()
def _errors(value: Tensor, processor: int, alike: bool) -> Tensor:
    """What this processor is off by, in a batch of this size, like value [B, ...]."""
    if value.numel() == 0 or value.ndim < 2:
        return torch.zeros_like(value)
    size = value.abs().amax(tuple(range(1, value.ndim)), keepdim=True)
    # Numbers without a pattern that need no generator: under torch.vmap there is none.
    if alike:
        share = (value.double() / size.double()).nan_to_num()
        error = torch.sin(1e7 * share * (12.9898 + processor) + 78.233 * len(value)) * (value != 0)
    else:
        place = torch.arange(value.numel(), dtype=torch.float64).view(value.shape)
        error = torch.sin((place + 1) * (12.9898 + processor) + 78.233 * len(value))
    return (error * _ULPS * torch.finfo(value.dtype).eps).to(value.dtype) * size


def stand_in(processor: int, *, alike: bool = False) -> RemovableHandle:
    """All networks run as on that processor, until the handle's remove() is called.

    Errors go by the place of a sum, so that even sums of the same numbers differ. With `alike` they
    go by its value: equal sums stay equal, and 0 stays 0, as where one kernel makes them all.
    """

    def after(module: nn.Module, arguments: object, output: object) -> Tensor | None:
        if not isinstance(module, nn.Linear | nn.Conv2d) or type(output) is not Tensor:
            return None
        if output.device.type != "cpu" or torch.compiler.is_compiling():
            return None
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient + _errors(gradient, processor, alike))
        return output + _errors(output, processor, alike)

    return nn.modules.module.register_module_forward_hook(after)


def moves(
    scores: Callable[[], Tensor], processors: Iterable[int], *, alike: bool = False
) -> Tensor:
    """float64 [P, B]: by which share of itself each of the scores [B] is another there."""
    here, found = scores().double(), []
    for processor in processors:
        handle = stand_in(processor, alike=alike)
        try:
            found.append(scores().double())
        finally:
            handle.remove()
    return (torch.stack(found) / here - 1).abs()


def main() -> None:
    from test_other_processors import PROCESSORS

    from vaal_ext import ldr_scores

    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    steps = {"method": "finite-difference", "xi": 0.01, "num_iters": 5}
    searches = {"direct": {}, "Ip 5, one sign": steps}

    def scores(network: nn.Module, x: Tensor, search: str) -> Tensor:
        return ldr_scores(network, x, eps=0.1, **searches[search])

    if len(sys.argv) == 3:  # in a process of another instruction set
        network, x = torch.load(sys.argv[1], weights_only=False)
        torch.save({search: scores(network, x, search) for search in searches}, sys.argv[2])
        return

    from trained import trained

    digits = trained("digits", None, 100, 256, torch.device("cpu"))
    found = {search: {} for search in searches}
    for search, moved in found.items():
        run = partial(scores, digits.model, digits.pool, search)
        moved["errors by place"] = moves(run, range(100))
        moved["equal sums alike"] = moves(run, range(100), alike=True)
    with tempfile.TemporaryDirectory() as folder:
        files = f"{folder}/network", f"{folder}/scores"
        torch.save((digits.model, digits.pool), files[0])
        for name, told in PROCESSORS.items():
            if "VAAL_TEST_PROCESSOR" in told:  # which is no real one
                continue
            subprocess.run([sys.executable, __file__, *files], env=os.environ | told, check=True)
            there = torch.load(files[1])
            for search, moved in found.items():
                here = scores(digits.model, digits.pool, search)
                moved[name] = (there[search].double() / here.double() - 1).abs()
    print("LDR moves, of itself: median / 99 % quantile / largest")
    for search, moved in found.items():
        for name, shares in moved.items():
            of = (shares.median(), shares.quantile(0.99), shares.max())
            print(f"{search:<16}{name:<24}" + " / ".join(f"{share:.1e}" for share in of))


if __name__ == "__main__":
    main()
elif "VAAL_TEST_PROCESSOR" in os.environ:
    stand_in(int(os.environ["VAAL_TEST_PROCESSOR"]))
