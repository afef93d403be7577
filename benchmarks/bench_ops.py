"""The fused ops beside what people write in PyTorch: ratios in one process, opponents in turn.

    python benchmarks/bench_ops.py [--device cpu] [--threads 1] [--csv FILE]

Value plus gradient (with respect to the perturbed logits) of the symmetric KL:

    direction   ops.symmetric_kl_direction: one pass, the gradient's rows scaled to maximum 1
    autograd    ops.symmetric_kl, then torch.autograd.grad: exact gradient, two passes
    eager       two F.kl_div with log_softmax, then torch.autograd.grad
    by hand     the same formula and its gradient written out in PyTorch
    compiled    the latter under torch.compile
    clone       one copy of the logits: what moving the bytes costs

A ratio above 1 says that ours is faster. The answers are compared before anything is timed. Losses
are printed like wins.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timing import about, timed, write_csv
from torch import Tensor

from vaal_ext import ops

LOGITS = [(1, 2), (256, 10), (4096, 10), (1024, 100), (1024, 1000), (512, 32000)]
IMAGES = [(256, 1, 28, 28), (256, 3, 32, 32), (64, 3, 224, 224)]


def eager(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    b = b.detach().requires_grad_()
    log_p, log_q = F.log_softmax(a, dim=1), F.log_softmax(b, dim=1)
    forward = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    value = (forward + F.kl_div(log_p, log_q, reduction="none", log_target=True)).sum(1)
    (gradient,) = torch.autograd.grad(value.sum(), b)
    return value.detach(), gradient


def by_hand(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    log_p, log_q = F.log_softmax(a, dim=1), F.log_softmax(b, dim=1)
    p, q, ratio = log_p.exp(), log_q.exp(), log_q - log_p
    change = q - p
    gradient = q * (ratio - (q * ratio).sum(1, keepdim=True)) + change
    return (change * ratio).sum(1), gradient


def autograd(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    b = b.detach().requires_grad_()
    value = ops.symmetric_kl(a, b)
    (gradient,) = torch.autograd.grad(value.sum(), b)
    return value.detach(), gradient


def step_by_hand(x: Tensor, direction: Tensor) -> Tensor:
    norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    return x + 0.1 * (direction / norm)


def random_step_by_hand(x: Tensor) -> Tensor:
    return step_by_hand(x, torch.randn_like(x))


def kl_contestants(shape, device):
    a = torch.randn(shape, device=device) * 3
    b = a + 0.1 * torch.randn(shape, device=device)
    # A fresh compilation for every shape, as a user with one shape would have it.
    torch._dynamo.reset()
    compiled = torch.compile(by_hand, dynamic=False)
    value, gradient = eager(a.double(), b.double())
    for call in (autograd, by_hand, compiled):
        torch.testing.assert_close(call(a, b)[0].double(), value, rtol=2e-2, atol=1e-5)
        torch.testing.assert_close(call(a, b)[1].double(), gradient, rtol=2e-2, atol=1e-5)
    ours, direction = ops.symmetric_kl_direction(a, b)
    torch.testing.assert_close(ours.double(), value, rtol=1e-5, atol=1e-9)
    scaled = gradient / gradient.abs().amax(1, keepdim=True)
    torch.testing.assert_close(direction.double(), scaled, rtol=1e-4, atol=1e-5)
    return {
        "direction": lambda: ops.symmetric_kl_direction(a, b),
        "autograd": lambda: autograd(a, b),
        "eager": lambda: eager(a, b),
        "by hand": lambda: by_hand(a, b),
        "compiled": lambda: compiled(a, b),
        "clone": lambda: a.clone(),
    }


def perturb_contestants(shape, device):
    x, direction = torch.randn(2, *shape, device=device)
    torch._dynamo.reset()
    compiled = torch.compile(step_by_hand, dynamic=False)
    expected = step_by_hand(x.double(), direction.double())
    for call in (lambda x, d: ops.perturb(x, d, 0.1), step_by_hand, compiled):
        torch.testing.assert_close(call(x, direction).double(), expected, rtol=1e-5, atol=1e-6)
    return {
        "perturb": lambda: ops.perturb(x, direction, 0.1),
        "eager": lambda: step_by_hand(x, direction),
        "compiled": lambda: compiled(x, direction),
        "clone": lambda: x.clone(),
    }


def random_perturb_contestants(shape, device):
    x, index = torch.randn(shape, device=device), torch.arange(shape[0], device=device)
    moved = ops.random_perturb(x, 0.1, seed=0, sample_index=index) - x
    expected = torch.full((shape[0],), 0.1, device=device)
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), expected, rtol=1e-4, atol=0)
    return {
        "random_perturb": lambda: ops.random_perturb(x, 0.1, seed=0, sample_index=index),
        "eager": lambda: random_step_by_hand(x),
        "clone": lambda: x.clone(),
    }


# op -> contestants, shapes, elements moved per element of the shape (read and written once)
GRID = {
    "symmetric_kl": (kl_contestants, LOGITS, 3),
    "perturb": (perturb_contestants, IMAGES, 3),
    "random_perturb": (random_perturb_contestants, IMAGES, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=101)
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    where, rows = about(args.device), []
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    for op, (contestants, shapes, moved) in GRID.items():
        for shape in shapes:
            elements = int(np.prod(shape))
            repeats = args.repeats if elements < 10**6 else max(31, args.repeats // 3)
            seconds = timed(contestants(shape, args.device), repeats, args.device)
            median = {name: np.median(values) for name, values in seconds.items()}
            ours = next(iter(median))
            print(f"\n{op} {shape}: {ours} {median[ours] * 1e6:.1f} us")
            for name, values in seconds.items():
                p20, p50, p80 = np.quantile(values, [0.2, 0.5, 0.8])
                ratio = p50 / median[ours]
                # Copying reads and writes an element once: 2 moves at the speed of clone().
                share = moved / 2 * median["clone"] / p50
                if name != ours:
                    print(f"    {ratio:7.2f} x  against {name}")
                facts = {"op": op, "contestant": name, "shape": "x".join(map(str, shape))}
                facts |= {"dtype": "float32", "p20_s": p20, "median_s": p50, "p80_s": p80}
                facts |= {"ratio_to_ours": ratio, "bytes": moved * 4 * elements}
                rows.append(facts | {"share_of_copy_bandwidth": share} | where)
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
