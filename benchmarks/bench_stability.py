"""How much of a query the random start and the batch size decide.

    python benchmarks/bench_stability.py [--device cpu] [--data-root ROOT] [--csv FILE]

Networks trained on digits (and on MNIST, if ROOT holds it) as active learning does, see trained.py.
For each method, sign, number of iterations and eps a pool is scored from `--starts` seeds:

    overlap      the share of the roughest tenth that two starts agree on, mean over all pairs
    correlation  Spearman's, of the two scores, likewise

eps is a length in pixels of [0, 1]; xi, of the finite differences, is a tenth of the smallest.

Then the search without a start (method="direct") and the finite differences (5 iterations, xi a
tenth of eps), each with batches of 1, 7, 64 and 256 of the first 600 samples at eps 0.1: the
network's products round otherwise with each size.

    move_median, move_max   how far the sizes spread a sample's score, as a part of the largest
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import options
import torch
from timing import Table, about
from trained import Trained, add_network_options, networks

from vaal_ext import ops
from vaal_ext.perturbation.ldr import LDR, find
from vaal_ext.perturbation.search import SearchSettings, Starts
from vaal_ext.pool.trials import rank_correlation

ITERATIONS = (1, 2, 5)
EPS = (0.1, 0.5, 2.0)
METHODS = {"finite-difference": 0.01, "fisher": None}  # with its xi
SIGNS = {"paper": lambda plus, minus: plus, "max": torch.maximum}
TOP = 0.1
SIZES, MOVED, MOVED_EPS = (1, 7, 64, 256), 600, 0.1
_BATCH = 256


def both_signs(
    network: Trained, method: str, num_iters: int, seed: int
) -> Iterator[tuple[float, torch.Tensor, torch.Tensor]]:
    """(eps, J at x + eps·u, J at x - eps·u), [N] each, for every eps: u does not depend on it."""
    search = SearchSettings(eps=1.0, method=method, num_iters=num_iters, xi=METHODS[method])
    index = torch.arange(len(network.pool), device=network.pool.device)
    found: dict[float, list] = {eps: [] for eps in EPS}
    for x, part in zip(network.pool.split(_BATCH), index.split(_BATCH), strict=True):
        with torch.no_grad():
            reached = find(method)(search, network.model, x, Starts(seed, part))
            flat = (torch.stack(reached.norms) == 0).any(0)
            for eps in EPS:
                step = eps * (reached.moved - x)
                logits = [network.model(x + r) for r in (step, -step)]
                both = [ops.symmetric_kl(reached.clean, z) for z in logits]
                found[eps].append(torch.stack(both).masked_fill(flat, 0))
    for eps, parts in found.items():
        yield (eps, *torch.cat(parts, dim=1).cpu())


def agreement(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The overlap of the roughest tenths, and the rank correlation."""
    size = max(1, round(TOP * len(one)))
    tops = (set(np.argsort(-scores, kind="stable")[:size].tolist()) for scores in (one, other))
    return len(set.intersection(*tops)) / size, rank_correlation(one, other)


def measure(network: Trained, starts: int, where: dict[str, object]) -> list[dict[str, object]]:
    rows = []
    for method, num_iters in itertools.product(METHODS, ITERATIONS):
        scores: dict[tuple[float, str], list[np.ndarray]] = {}
        for seed in range(starts):
            for eps, plus, minus in both_signs(network, method, num_iters, seed):
                for sign, combine in SIGNS.items():
                    scores.setdefault((eps, sign), []).append(combine(plus, minus).numpy())
        for (eps, sign), found in scores.items():
            pairs = [agreement(*pair) for pair in itertools.combinations(found, 2)]
            overlap, correlation = np.mean(pairs, axis=0).tolist()
            facts = {"network": network.name, "samples": len(network.pool), "starts": starts}
            facts |= {"method": method, "xi": METHODS[method], "num_iters": num_iters, "eps": eps}
            facts |= {"sign": sign, "overlap": overlap, "correlation": correlation}
            facts |= {"move_median": None, "move_max": None}
            rows.append(facts | where)
            print(
                f"{network.name:<20}{method:<20}Ip {num_iters}  eps {eps:<5g}{sign:<7}"
                f"overlap {overlap:.3f}  correlation {correlation:.4f}",
                flush=True,
            )
    return rows


def moves(network: Trained, search: SearchSettings) -> np.ndarray:
    """The spread [N] of a sample's scores over the batch sizes, in the largest of them."""
    pool = network.pool[:MOVED]
    index = torch.arange(len(pool), device=pool.device)
    found = []
    for size in SIZES:
        parts = zip(pool.split(size), index.split(size), strict=True)
        found.append(torch.cat([LDR(search).run(network.model, x, p).value for x, p in parts]))
    scores = torch.stack(found).double().cpu().numpy()
    largest = scores.max(0)
    return np.divide(np.ptp(scores, axis=0), largest, out=np.zeros_like(largest), where=largest > 0)


def measure_moves(network: Trained, where: dict[str, object]) -> list[dict[str, object]]:
    rows = []
    for settings in (
        SearchSettings(eps=MOVED_EPS),
        SearchSettings(eps=MOVED_EPS, method="finite-difference", xi=MOVED_EPS / 10),
    ):
        moved = moves(network, settings)
        facts = {"network": network.name, "samples": len(moved), "starts": None}
        facts |= {"method": settings.method, "xi": settings.xi, "num_iters": settings.num_iters}
        facts |= {"eps": MOVED_EPS, "sign": "paper", "overlap": None, "correlation": None}
        facts |= {"move_median": np.median(moved), "move_max": moved.max()}
        rows.append(facts | where)
        print(
            f"{network.name:<20}{settings.method:<20}batches of {', '.join(map(str, SIZES))}: "
            f"scores move by {facts['move_median']:.1e}, at most {facts['move_max']:.1e}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = options.parser(__doc__, threads=False)
    add_network_options(parser)
    parser.add_argument("--starts", type=options.several, default=4)
    args = parser.parse_args()
    where = about(args.device)
    print(
        "overlap: the share of the roughest tenth that two random starts agree on; correlation: "
        "Spearman's, of their scores (1: the start has no say)"
    )
    trained = networks(args.device, args.samples, args.data_root, args.mnist_samples)
    table = Table(args.csv)
    for network in trained:
        table.add(measure(network, args.starts, where) + measure_moves(network, where))


if __name__ == "__main__":
    main()
