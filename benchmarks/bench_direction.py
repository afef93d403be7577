"""What the exact worst direction would cost, and what it would be worth.

    python benchmarks/bench_direction.py [--device cpu] [--threads 1 2] [--data-root ROOT]
        [--csv FILE]

The form of section III-A is H = JᵀFJ, F = diag(p) - ppᵀ = SSᵀ with S = diag(√p) - p√pᵀ, so its top
eigenvector is JᵀSv, v the one of the Gram matrix SᵀJJᵀS [C, C]: no start, no iteration, but the
input gradients of all C classes, which one vectorised backward gives. On networks trained on digits
(and on MNIST, if ROOT holds it) as active learning does, see trained.py, beside the searches of the
package:

    time       of a batch, in that of the default (finite differences, Ip = 5); taking turns
    quotient   uᵀHu in that of the exact direction, median and 5th percentile of the pool
    overlap    the share of the roughest tenth in common with the exact direction's; eps = 0.1, both
               signs scored, the larger taken
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import options
import torch
from bench_stability import ITERATIONS, METHODS, agreement
from timing import Table, about, quantiles, timed
from torch import Tensor, nn
from trained import Trained, add_network_options, networks

from vaal_ext import ops
from vaal_ext.perturbation.gradient import input_gradient
from vaal_ext.perturbation.ldr import find
from vaal_ext.perturbation.search import SearchSettings, Starts

EXACT, DEFAULT = "Gram matrix", ("finite-difference", 5)
EPS = 0.1
Search = Callable[[nn.Module, Tensor, Tensor], Tensor]


def class_gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits [B, C] and their gradients J [B, C, D], from one forward and one backward."""
    moved = x.detach().requires_grad_()
    logits = model(moved)
    each = torch.eye(logits.shape[1], dtype=logits.dtype, device=x.device)
    slopes = each[:, None, :].expand(-1, len(x), -1)
    gradients = input_gradient(logits, moved, slopes, batched=True)
    return logits.detach(), gradients.flatten(2).transpose(0, 1)


def root_of_fisher(logits: Tensor) -> Tensor:
    """S [B, C, C], SSᵀ = diag(p) - ppᵀ."""
    p = logits.softmax(dim=1)
    return torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]


def exact(model: nn.Module, x: Tensor, index: Tensor) -> Tensor:
    """Unit directions like x; `index` is for the searches that start somewhere."""
    logits, jacobian = class_gradients(model, x)
    root = root_of_fisher(logits)
    pulled = root.transpose(1, 2) @ jacobian
    top = torch.linalg.eigh(pulled @ pulled.transpose(1, 2)).eigenvectors[:, :, -1:]
    direction = (top.transpose(1, 2) @ pulled).view_as(x)
    return ops.perturb(torch.zeros_like(x), direction, 1.0)


def iterated(method: str, num_iters: int, model: nn.Module, x: Tensor, index: Tensor) -> Tensor:
    """Unit directions like x, as LDRScorer searches them."""
    search = SearchSettings(eps=1.0, method=method, num_iters=num_iters, xi=METHODS[method])
    with torch.no_grad():
        return find(method)(search, model, x, Starts(0, index)).moved - x


SEARCHES: dict[tuple[str, int | None], Search] = {
    (method, number): partial(iterated, method, number)
    for method in METHODS
    for number in ITERATIONS
}
SEARCHES[EXACT, None] = exact


def quotients(model: nn.Module, x: Tensor, directions: Tensor) -> Tensor:
    """uᵀHu [N] in float64."""
    found = []
    for part, u in zip(x.double().split(256), directions.double().split(256), strict=True):
        logits, jacobian = class_gradients(model, part)
        pushed = jacobian @ u.flatten(1)[:, :, None]
        pulled = root_of_fisher(logits).transpose(1, 2) @ pushed
        found.append(pulled.square().sum((1, 2)))
    return torch.cat(found)


def roughness(model: nn.Module, x: Tensor, directions: Tensor) -> np.ndarray:
    """The larger J [N] of x + eps·u and x - eps·u."""
    with torch.no_grad():
        clean = model(x)
        both = [ops.symmetric_kl(clean, model(x + sign * EPS * directions)) for sign in (1, -1)]
    return torch.maximum(*both).cpu().numpy()


def quality(network: Trained, batch_size: int) -> dict[tuple[str, int | None], dict[str, float]]:
    """For each search how near it comes to the exact one, over the pool."""
    pool, index = network.pool, torch.arange(len(network.pool), device=network.pool.device)
    batches = list(zip(pool.split(batch_size), index.split(batch_size), strict=True))
    found = {
        name: torch.cat([search(network.model, *batch) for batch in batches])
        for name, search in SEARCHES.items()
    }
    best = found[EXACT, None]
    precise = network.model.double()
    largest = quotients(precise, pool, best)
    curved = {name: quotients(precise, pool, u) / largest for name, u in found.items()}
    network.model.to(pool.dtype)
    scores = {name: roughness(network.model, pool, u) for name, u in found.items()}
    return {
        name: {
            "quotient_median": curved[name].median().item(),
            "quotient_p05": curved[name].quantile(0.05).item(),
            "overlap": agreement(scores[name], scores[EXACT, None])[0],
        }
        for name in SEARCHES
    }


def measure(network: Trained, near: dict, args) -> list[dict[str, object]]:
    """The rows of one network under the present number of threads: timed and printed."""
    x = network.pool[: args.batch_size]
    index = torch.arange(len(x), device=x.device)
    calls = {name: partial(search, network.model, x, index) for name, search in SEARCHES.items()}
    seconds = timed(calls, args.seconds, args.device)
    print(f"\n{network.name}, batch {len(x)}, threads {torch.get_num_threads()}")
    print(
        "x default: so many times as long as the default search; quotient: what it finds, as part "
        "of what the exact direction finds; overlap: of its roughest tenth with the exact one's"
    )
    print(f"{'':20}{'Ip':>4}{'median ms':>11}{'x default':>11}{'quotient':>10}{'overlap':>9}")
    rows = []
    for (method, number), values in seconds.items():
        ratio = float(np.median(values / seconds[DEFAULT]))
        facts = near[method, number]
        print(
            f"{method:20}{number or '–':>4}{np.median(values) * 1e3:11.1f}{ratio:11.2f}"
            f"{facts['quotient_median']:10.4f}{facts['overlap']:9.2f}"
        )
        rows.append(
            {"network": network.name, "samples": len(network.pool), "batch_size": len(x)}
            | {"method": method, "num_iters": number, "eps": EPS}
            | facts
            | quantiles(values)
            | {"ratio_to_default": ratio}
            | about(args.device)
        )
    return rows


def main() -> None:
    parser = options.parser(__doc__)
    add_network_options(parser)
    parser.add_argument("--batch-size", type=options.positive, default=256)
    parser.add_argument("--seconds", type=float, default=60.0, help="for one network")
    args = parser.parse_args()
    table = Table(args.csv)
    for network in networks(args.device, args.samples, args.data_root, args.mnist_samples):
        near = quality(network, args.batch_size)
        for threads in options.threads_of(args):
            torch.set_num_threads(threads)
            table.add(measure(network, near, args))


if __name__ == "__main__":
    main()
