"""What scoring costs beside the network's own passes, and beside the VAT code in use.

    python benchmarks/bench_ldr.py [--device cpu] [--threads 1 2] [--batch-size 256] [--csv FILE]

Two networks on 28x28 pixels, 5 iterations: the paper's CNN with 10 classes, whose passes are the
work, and a small MLP with 32000 classes, where the divergence is. Their weights are random, with
the last layer scaled to logits of standard deviation 3, for an untrained network's posterior is
all but uniform and its gradients all but zero. In one process, taking turns:

    bare               num_iters + 2 forwards and num_iters input-only backwards of the same network
    bare, graph        these as a CUDA graph (CUDA only)
    vaal_ext           LDRScorer.score, symmetric KL (the network's passes included)
    vaal_ext, forward  the same with the forward KL, as VAT has it
    the others         see vat_loops.py; they let the parameters require grad, as users do

The answers are compared before anything is timed: `eager` with the symmetric scores, the others
with the forward ones, all from the same start vectors (Foolbox, which draws its own, on a network
where the start does not matter). Batch mean or not, the direction is the same, as long as the
gradients are far above what the loops add to the norms: so it is at the paper's step (xi = eps = 2)
where all are timed. How far their scores are off at a step of 0.01, for which a finite difference
is nearer the derivative, is measured besides. Losses are printed like wins.

Where the C library is glibc it is told to keep freed memory: otherwise the page faults of the
network's large activations, which fall on one contestant or another as the heap happens to lie,
move the ratios by several per cent. --default-heap leaves it as it is.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import importlib.util
from collections.abc import Callable
from functools import partial

import numpy as np
import options
import torch
import vat_loops
from timing import Table, about, quantiles, timed
from torch import Tensor, nn

from vaal_ext.cuda.recorder import CudaRecorder
from vaal_ext.models import PaperCNN
from vaal_ext.reference import random_perturb
from vaal_ext.scorer import LDRScorer

XI, SMALL_XI, EPS, NUM_ITERS = 2.0, 0.01, 2.0, 5
HAS_FOOLBOX = importlib.util.find_spec("foolbox") is not None
OURS = ("vaal_ext", "vaal_ext, forward")
# Another direction or another divergence differs by a tenth or more at half the samples; the
# rounding of the textbook formulas, and the 1e-8 and 1e-6 that the loops add to norms, by less.
WRONG = 0.05


def paper_cnn() -> nn.Module:
    return PaperCNN(1, (28, 28), 10)


def wide_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 32000))


NETWORKS = {"PaperCNN, C = 10": paper_cnn, "MLP, C = 32000": wide_mlp}


def confident(model: nn.Module, x: Tensor) -> nn.Module:
    """The model with its last layer scaled: logits of standard deviation 3 on x."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        factor = 3 / model(x).std()
        last.weight *= factor
        last.bias *= factor
    return model


def bare(model: nn.Module, x: Tensor) -> tuple[Tensor]:
    """The network's passes and nothing else; the last logits."""
    with torch.no_grad():
        slope = model(x)
    for _ in range(NUM_ITERS):
        moved = x.detach().requires_grad_()
        torch.autograd.grad(model(moved), moved, slope)
    with torch.no_grad():
        return (model(x),)


def bare_graph(model: nn.Module, batch: Tensor) -> Callable[[Tensor], tuple[Tensor]]:
    """The same passes as a CUDA graph, which is how LDRScorer runs a network on a GPU."""
    recorder, passes, static = CudaRecorder(batch.device), partial(bare, model), batch.clone()
    recorder.warm_up(passes, static)
    replay, outputs = recorder.record(passes, static)

    def run(x: Tensor) -> tuple[Tensor]:
        static.copy_(x)
        replay()
        return outputs

    return run


def over(function: Callable[..., object], *batches: tuple[Tensor, ...]) -> Callable[[], list]:
    """A call of the function on every batch."""
    return lambda: [function(*batch) for batch in zip(*batches, strict=True)]


def contestants(
    model: nn.Module, x: Tensor, xi: float, batch_size: int
) -> dict[str, Callable[[], object]]:
    """Name -> call that goes through x [N, ...] in batches; the scorers give all their scores."""
    frozen = copy.deepcopy(model).requires_grad_(False)
    index = torch.arange(len(x), device=x.device)
    u = random_perturb(torch.zeros_like(x), 1.0, seed=0, sample_index=index).split(batch_size)
    batches = x.split(batch_size)
    loop = {"xi": xi, "eps": EPS, "num_iters": NUM_ITERS}
    scorer, forward = (
        LDRScorer(
            model,
            method="finite-difference",
            **loop,
            divergence=divergence,
            batch_size=batch_size,
        )
        for divergence in ("symmetric", "forward")
    )
    vat = partial(vat_loops.vat, model, **loop)
    calls: dict[str, Callable[[], object]] = {
        "bare": over(partial(bare, frozen), batches),
        "vaal_ext": lambda: scorer.score(x, progress=False).ldr,
        "vaal_ext, forward": lambda: forward.score(x, progress=False).ldr,
        "eager": over(partial(vat_loops.eager, model, **loop), batches, u),
        "vat": over(vat, batches, u),
        "vat, input only": over(partial(vat, input_only=True), batches, u),
        "vat, numpy": over(partial(vat, on_host=True), batches, u),
    }
    if x.is_cuda:
        calls["bare, graph"] = over(bare_graph(frozen, batches[0]), batches)
    if HAS_FOOLBOX:
        calls["Foolbox"] = over(partial(vat_loops.foolbox, model, **loop), batches)
    return calls


def differences(model: nn.Module, x: Tensor, xi: float, batch_size: int) -> dict[str, float]:
    """The median relative difference of each opponent's scores from ours."""
    calls = contestants(model, x, xi, batch_size)
    ours = {name: calls[name]() for name in OURS}
    found = {}
    for name in calls.keys() - {"bare", "bare, graph", *OURS, "Foolbox"}:
        expected = ours["vaal_ext" if name == "eager" else "vaal_ext, forward"]
        theirs = torch.cat(calls[name]()).double().cpu().numpy()
        found[name] = float(np.median(np.abs(theirs - expected) / expected))
    return found


def judge(found: dict[str, float], device: torch.device) -> None:
    """Ends the benchmark where an opponent computes something else."""
    for name, difference in found.items():
        if not difference < WRONG:
            raise SystemExit(f"{name} is off by {difference:.1e}: nothing was timed")
    if HAS_FOOLBOX and not vat_loops.foolbox_follows_the_gradient(device):
        raise SystemExit("Foolbox's perturbation is not the gradient's: nothing was timed")


def keep_freed_memory() -> bool:
    """True if glibc now neither maps large blocks one by one nor gives the heap's top back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    mmap_max, trim_threshold = -4, -1
    return bool(mallopt and mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


def measure(
    network: str,
    calls: dict[str, Callable[[], object]],
    off: dict[str, tuple[float, float]],
    heap_kept: bool,
    args: argparse.Namespace,
) -> list[dict[str, object]]:
    """The rows of one network under the present number of threads: timed and printed."""
    seconds = timed(calls, args.seconds, args.device)
    where = f"batch {args.batch_size}, threads {torch.get_num_threads()}, heap kept: {heap_kept}"
    print(f"\n{network}, {where}")
    print(
        "x bare: so many times as long as the network's own passes; x vaal_ext: so many times as "
        "long as vaal_ext (below 1: faster than it)"
    )
    print(f"{'':20}{'median ms':>11}{'x bare':>9}{'x vaal_ext':>12}{'scores off by':>16}")
    rows = []
    for name, values in seconds.items():
        # Round by round, so that what slows the machine for a while falls on both.
        to_bare, to_ours = (
            float(np.median(values / seconds[other])) for other in ("bare", "vaal_ext")
        )
        line = f"{name:20}{np.median(values) * 1e3:11.1f}{to_bare:9.3f}{to_ours:12.3f}"
        at_xi, at_small_xi = off.get(name, (None, None))
        if name in off:
            line += f"{at_xi:16.1e}, {at_small_xi:.1e} at xi = {SMALL_XI}"
        print(line)
        rows.append(
            {"network": network, "opponent": name, "batch_size": args.batch_size}
            | {"batches": args.batches}
            | {"num_iters": NUM_ITERS}
            | quantiles(values)
            | {"ratio_to_bare": to_bare, "ratio_to_ours": to_ours}
            | {"error_median": at_xi, "error_at_small_xi": at_small_xi}
            | {"xi": XI, "small_xi": SMALL_XI, "eps": EPS, "heap_kept": heap_kept}
            | about(args.device)
        )
    return rows


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--batch-size", type=options.positive, default=256)
    parser.add_argument(
        "--batches", type=options.positive, help="by default 1, and 32 on a CUDA device"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="for one network")
    parser.add_argument(
        "--default-heap", action="store_true", help="leave the C library's allocator as it is"
    )
    args = parser.parse_args()
    heap_kept = not args.default_heap and keep_freed_memory()
    table = Table(args.csv)
    torch.manual_seed(0)
    # A graph is captured on the second batch of a pool: a GPU needs some more to show what it buys.
    args.batches = args.batches or (32 if args.device.type == "cuda" else 1)
    x = torch.rand(args.batches * args.batch_size, 1, 28, 28, device=args.device)
    for network, factory in NETWORKS.items():
        model = confident(factory().to(args.device).eval(), x)
        found, small = (differences(model, x, xi, args.batch_size) for xi in (XI, SMALL_XI))
        judge(found, args.device)
        off = {name: (found[name], small[name]) for name in found}
        for threads in options.threads_of(args):
            torch.set_num_threads(threads)
            calls = contestants(model, x, XI, args.batch_size)
            table.add(measure(network, calls, off, heap_kept, args))


if __name__ == "__main__":
    main()
