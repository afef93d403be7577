"""What scoring costs beside the network's own passes, and beside a plain PyTorch VAT loop.

    python benchmarks/bench_ldr.py [--device cpu] [--batch-size 256] [--csv FILE]

The paper's CNN on 28x28x1, in one process, the opponents taking turns:

    bare    num_iters + 2 forwards and num_iters input-only backwards of the same network
    scorer  LDRScorer.score on the same samples (the network's passes included)
    eager   the usual VAT loop: autograd through two F.kl_div, norms by hand

The answers are compared before anything is timed. Where the C library is glibc it is told to keep
freed memory: otherwise the page faults of the network's large activations, which fall on one
contestant or another as the heap happens to lie, move the ratios by several per cent.
"""

from __future__ import annotations

import argparse
import ctypes
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timing import about, timed, write_csv
from torch import Tensor, nn

from vaal_ext.models import PaperCNN
from vaal_ext.reference import random_perturb
from vaal_ext.roughness import LDRScorer

XI, EPS = 0.1, 2.0


def bare(model: nn.Module, batches: list[Tensor], num_iters: int) -> None:
    """The network's passes and nothing else."""
    for x in batches:
        with torch.no_grad():
            slope = model(x)
        for _ in range(num_iters):
            moved = x.detach().requires_grad_()
            torch.autograd.grad(model(moved), moved, slope)
        with torch.no_grad():
            model(x)


def eager(
    model: nn.Module, batches: list[Tensor], starts: list[Tensor], num_iters: int
) -> list[Tensor]:
    """LDR as VAT code computes it, from the given unit directions."""

    def divergence(a: Tensor, b: Tensor) -> Tensor:
        log_p, log_q = F.log_softmax(a, dim=1), F.log_softmax(b, dim=1)
        forward = F.kl_div(log_q, log_p, reduction="none", log_target=True)
        backward = F.kl_div(log_p, log_q, reduction="none", log_target=True)
        return (forward + backward).sum(1)

    scores = []
    for x, u in zip(batches, starts, strict=True):
        with torch.no_grad():
            clean = model(x)
        for _ in range(num_iters):
            u = u.detach().requires_grad_()
            value = divergence(clean, model(x + XI * u)).sum()
            (gradient,) = torch.autograd.grad(value, u)
            norm = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
            u = gradient / norm.clamp_min(1e-12)
        with torch.no_grad():
            scores.append(divergence(clean, model(x + EPS * u)))
    return scores


def check(found: np.ndarray, expected: np.ndarray) -> None:
    """The two agree as far as the textbook formula's rounding in float32 allows."""
    error = np.abs(found - expected) / expected
    print(f"answer: relative difference scorer - eager: median {np.median(error):.1e}")
    if not np.median(error) < 1e-3 or not np.corrcoef(found, expected)[0, 1] > 0.999:
        raise SystemExit("the scorer and the eager loop disagree: nothing was timed")


def keep_freed_memory() -> bool:
    """True if glibc now neither maps large blocks one by one nor gives the heap's top back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    mmap_max, trim_threshold = -4, -1
    return bool(mallopt and mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=1, help="batches in the pool")
    parser.add_argument("--num-iters", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backend", choices=("fused", "reference"), default="fused")
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    parser.add_argument(
        "--default-heap", action="store_true", help="leave the C library's allocator as it is"
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    heap_kept = not args.default_heap and keep_freed_memory()
    torch.manual_seed(0)
    model = PaperCNN(1, (28, 28), 10).to(args.device).eval().requires_grad_(False)
    pool = torch.rand(args.batches * args.batch_size, 1, 28, 28, device=args.device)
    batches = list(pool.split(args.batch_size))
    index = torch.arange(len(pool), device=args.device)
    u = random_perturb(torch.zeros_like(pool), 1.0, seed=0, sample_index=index)
    starts = list(u.split(args.batch_size))
    scorer = LDRScorer(
        model,
        xi=XI,
        eps=EPS,
        num_iters=args.num_iters,
        batch_size=args.batch_size,
        backend=args.backend,
    )
    check(
        scorer.score(pool, progress=False).ldr.astype(np.float64),
        torch.cat(eager(model, batches, starts, args.num_iters)).double().cpu().numpy(),
    )
    seconds = timed(
        {
            "bare": lambda: bare(model, batches, args.num_iters),
            "scorer": lambda: scorer.score(pool, progress=False),
            "eager": lambda: eager(model, batches, starts, args.num_iters),
        },
        args.repeats,
        args.device,
    )
    facts = about(args.device) | {
        "heap_kept": heap_kept,
        "backend": args.backend,
        "batch_size": args.batch_size,
        "batches": args.batches,
        "num_iters": args.num_iters,
        "repeats": args.repeats,
    }
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"{'':8}{'median ms':>11}{'p10 ms':>9}{'p90 ms':>9}{'x bare':>9}{'samples/s':>11}")
    rows = []
    for name, values in seconds.items():
        p10, median, p90 = np.quantile(values, [0.1, 0.5, 0.9])
        ratio = median / np.median(seconds["bare"])
        rows.append(
            facts
            | {"what": name, "median_s": median, "p10_s": p10, "p90_s": p90, "ratio_to_bare": ratio}
        )
        print(
            f"{name:8}{median * 1e3:11.1f}{p10 * 1e3:9.1f}{p90 * 1e3:9.1f}{ratio:9.3f}"
            f"{len(pool) / median:11.0f}"
        )
    quantiles = np.quantile(seconds["scorer"] / seconds["bare"], [0.1, 0.5, 0.9])
    print("scorer / bare, round by round: p10 {:.3f}, median {:.3f}, p90 {:.3f}".format(*quantiles))
    print(f"eager / scorer: {np.median(seconds['eager']) / np.median(seconds['scorer']):.3f}")
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
