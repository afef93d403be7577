"""How near each search of r comes to the worst direction, and what it costs in passes.

    python benchmarks/bench_search.py [--data-root ROOT] [--cifar FOLDER] [--csv FILE]

Networks of several kinds (kinds.py): ReLU, max pooling, dropout (the paper's CNN on MNIST, if ROOT
holds it), batch norm (torchvision's ResNet-18 on CIFAR-10, if FOLDER holds its images, a folder a
class), attention, 500 classes, an untrained one. At each radius eps:

    Ip 5              the power iteration from a random start, xi a tenth of eps
    Ip 5, max         the larger of J at x + r and x - r
    direct            method="direct", and with one and two iterations more
    runner-up         r along the gradient of the runner-up's logit less the pseudo label's

    forwards, backwards   of a sample, counted; the backwards are input-only
    ratio             J found, in the largest that any search found: those above, and direct and Ip
                      from two starts with 20 iterations, all with both signs
    top tenth         the share of the pool's true top tenth that is in the search's
    band              likewise of the ranks from the 90th to the 95th percentile, where queries lie
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import options
import torch
from kinds import kinds
from timing import Table, about
from torch import Tensor
from trained import Trained

from vaal_ext import ops
from vaal_ext.perturbation.gradient import recorded
from vaal_ext.perturbation.ldr import LDR
from vaal_ext.perturbation.search import SearchSettings

Forward = Callable[[Tensor], Tensor]
Search = Callable[[Forward, Tensor, Tensor], Tensor]
TRUE_ITERS, TRUE_STARTS = 20, 2
_BATCH = 250


def searched(*, seed: int = 0, **settings) -> Search:
    def search(forward: Forward, x: Tensor, index: Tensor) -> Tensor:
        return LDR(SearchSettings(**settings), seed).run(forward, x, index).value

    return search


def runner_up(eps: float) -> Search:
    """r along the gradient of the difference of the two largest logits."""

    def search(forward: Forward, x: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            logits, pull = recorded(forward, x.clone())
            clean = logits.detach().clone()
            best = clean.topk(2, 1).indices
            signs = clean.new_tensor([-1.0, 1.0]).expand_as(best)
            slope = torch.zeros_like(clean).scatter(1, best, signs)
            return ops.symmetric_kl(clean, forward(ops.perturb(x, pull(slope), eps)))

    return search


def searches(eps: float) -> dict[str, Search]:
    usual = {"method": "finite-difference", "eps": eps, "xi": eps / 10}
    return {
        "Ip 5": searched(**usual),
        "Ip 5, max": searched(**usual, sign="max"),
        "direct": searched(eps=eps),
        "direct, 1 iteration": searched(eps=eps, num_iters=1),
        "direct, 2 iterations": searched(eps=eps, num_iters=2),
        "runner-up": runner_up(eps),
    }


def true_searches(eps: float) -> list[Search]:
    """Those whose largest J stands for the maximum of Eq. 1."""
    usual = {"eps": eps, "num_iters": TRUE_ITERS, "sign": "max"}
    return [
        searched(**usual),
        *(
            searched(**usual, method="finite-difference", xi=eps / 10, seed=seed)
            for seed in range(TRUE_STARTS)
        ),
    ]


def scores(network: Trained, search: Search) -> tuple[np.ndarray, float, float]:
    """J [N], float64, and the forwards and backwards of a sample."""
    passes = {"forward": 0, "backward": 0}

    def forward(x: Tensor) -> Tensor:
        passes["forward"] += len(x)
        if x.requires_grad:
            x.register_hook(lambda gradient: passes.update(backward=passes["backward"] + len(x)))
        return network.model(x)

    index = torch.arange(len(network.pool), device=network.pool.device)
    parts = zip(network.pool.split(_BATCH), index.split(_BATCH), strict=True)
    found = torch.cat([search(forward, x, part) for x, part in parts]).double().cpu().numpy()
    return found, passes["forward"] / len(found), passes["backward"] / len(found)


def true_maximum(network: Trained, eps: float) -> np.ndarray:
    """The largest J [N] that the long searches found."""
    return np.max([scores(network, search)[0] for search in true_searches(eps)], axis=0)


def between(values: np.ndarray, low: float, high: float) -> set[int]:
    """The samples whose ranks lie between two percentiles."""
    rising = np.argsort(values, kind="stable")
    size = len(values)
    return set(rising[round(low / 100 * size) : round(high / 100 * size)].tolist())


def shared(values: np.ndarray, truth: np.ndarray, low: float, high: float) -> float:
    """The share of the true samples between two percentiles that are there by the values too."""
    true = between(truth, low, high)
    return len(true & between(values, low, high)) / max(1, len(true))


def confidence(network: Trained) -> float:
    """The mean posterior of the pseudo labels: a tenth where the posterior is uniform."""
    with torch.no_grad():
        logits = torch.cat([network.model(x) for x in network.pool.split(_BATCH)])
    return logits.softmax(1).amax(1).mean().item()


def measure(network: Trained, eps: float, where: dict[str, object]) -> list[dict[str, object]]:
    found = {name: scores(network, search) for name, search in searches(eps).items()}
    truth = true_maximum(network, eps)
    truth = np.max([truth, *(values for values, _, _ in found.values())], axis=0)
    facts = {"network": network.name, "samples": len(truth), "confidence": confidence(network)}
    rows = []
    print(f"\n{network.name}, {len(truth)} samples, eps {eps:g}")
    print(f"{'':24}{'passes':>10}{'ratio':>8}{'(5 %)':>8}{'top tenth':>11}{'band':>7}")
    for name, (values, forwards, backwards) in found.items():
        # A sample at which no search found anything has found all there is.
        ratio = np.divide(values, truth, out=np.ones_like(truth), where=truth > 0)
        median, low = np.quantile(ratio, [0.5, 0.05]).tolist()
        top, band = shared(values, truth, 90, 100), shared(values, truth, 90, 95)
        rows.append(
            facts
            | {"eps": eps, "search": name, "forwards": forwards, "backwards": backwards}
            | {"ratio_median": median, "ratio_p05": low, "top_tenth": top, "band": band}
            | where
        )
        passes = f"{forwards:g}F+{backwards:g}B"
        print(f"{name:24}{passes:>10}{median:8.3f}{low:8.3f}{top:11.2f}{band:7.2f}", flush=True)
    return rows


def main() -> None:
    parser = options.parser(__doc__, threads=False)
    parser.add_argument("--data-root", type=Path, help="folder that holds MNIST/raw")
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10's images, a folder a class")
    parser.add_argument("--samples", type=options.positive, default=1000, help="of a pool, at most")
    parser.add_argument("--cifar-samples", type=options.positive, default=500)
    args = parser.parse_args()
    where, table = about(args.device), Table(args.csv)
    for make, radii in kinds(
        args.device, args.samples, args.data_root, args.cifar, args.cifar_samples
    ):
        network = make()
        for eps in radii:
            table.add(measure(network, eps, where))


if __name__ == "__main__":
    main()
