"""What a query costs, by this library and by what people use instead, and what it finds.

    python benchmarks/bench_query.py --data-root ROOT [--cifar FOLDER] [--pool 10000]
        [--threads 1 2] [--rounds 3] [--only entropy vaal] [--csv FILE]

The paper's CNN trained on 300 labels and a pool of MNIST (--pool 0: without it; digits, where there
is no ROOT); torchvision's ResNet-18 on CIFAR-10, if FOLDER holds its images. Each contestant scores
the pool and picks 100 samples (VAAL: percentile 90, eps 0.1, of normalised CIFAR-10 0.11), in one
process, taking turns; times are those of a turn in the time of `entropy` in the same round
(medians). One whose first turn took over two minutes has no other.

    entropy, margin    a forward over the pool, and the picks
    vaal               as the strategy is: the direct search, screened
    vaal, one step     the same with num_iters=1: a step more after the first, screened too
    vaal, unscreened   LDR for the whole pool
    vaal, amp auto     the same with amp="auto": number and memory format by trial
    vaal, Ip 5         the power iteration from a random start, 5 finite differences, unscreened
    published VAT      its loop (vat_loops.py), Ip 5, and the same picks
    BADGE, CoreSet, TypiClust  of scikit-activeml, on the inputs of the last layer
    BALD               of baal: 20 passes with dropout (networks that have some)
    DeepFool           of Foolbox, the smallest norms

    shared_full        the share of the picks that `vaal, unscreened` picks too
    shared_true        that all but the maximum of Eq. 1 picks: the larger of both signs after the
                       direct search and 8 steps more (two steps reach 0.98 of bench_search.py's
                       maximum at its 5 % quantile on trained networks); --no-truth leaves it out
    in_top_tenth       that lie in the tenth of the pool where that is largest
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import options
import query_opponents
import torch
import vat_loops
from bench_deepfool import foolbox
from bench_search import between
from kinds import resnet
from timing import Table, about, quantiles, turns
from torch import Tensor
from trained import Trained, trained

from vaal_ext import LDRScorer, select
from vaal_ext.pool.scores import PoolScores
from vaal_ext.reference import random_perturb
from vaal_ext.strategies import QueryContext, make_strategy

Query = Callable[[Tensor], np.ndarray]
PICKS, PERCENTILE, NUM_ITERS = 100, 90.0, 5
LONG = 120.0  # seconds: a contestant that takes longer has one turn
_BATCH, _WARM = 256, 512
_COMPARED = ("entropy", "vaal, unscreened")  # with what the others are compared


def by_strategy(network: Trained, classes: int, name: str, **settings) -> Query:
    strategy = make_strategy(name, **settings)

    def query(pool: Tensor) -> np.ndarray:
        context = QueryContext(
            np.arange(len(pool)),
            classes,
            0,
            batch_size=_BATCH,
            n=PICKS,
            labelled=lambda: network.labelled,
        )
        return strategy.pick(strategy.score(network.model, pool, context), PICKS, context)

    return query


def picked(ldr: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    return select(ldr, label, PICKS, percentile=PERCENTILE, num_classes=classes, seed=0)


def unscreened(network: Trained, classes: int, **settings) -> Query:
    def query(pool: Tensor) -> np.ndarray:
        scorer = LDRScorer(network.model, batch_size=_BATCH, **settings)
        scores: PoolScores = scorer.score(pool, progress=False)
        return picked(scores.ldr, scores.pseudo_label, classes)

    return query


def published(network: Trained, classes: int, eps: float) -> Query:
    settings = {"xi": eps / 10, "eps": eps, "num_iters": NUM_ITERS}
    model = query_opponents.as_trained(network.model)

    def query(pool: Tensor) -> np.ndarray:
        index = torch.arange(len(pool), device=pool.device)
        u = random_perturb(torch.zeros_like(pool), 1.0, seed=0, sample_index=index)
        ldr, label = [], []
        for x, start in zip(pool.split(_BATCH), u.split(_BATCH), strict=True):
            ldr.append(vat_loops.vat(model, x, start, **settings))
            with torch.no_grad():
                label.append(model(x).argmax(1))
        return picked(torch.cat(ldr).cpu().numpy(), torch.cat(label).cpu().numpy(), classes)

    return query


def by_deepfool(network: Trained) -> Query:
    def query(pool: Tensor) -> np.ndarray:
        steps = [foolbox(network.model, x).flatten(1) for x in pool.split(_BATCH)]
        return torch.cat(steps).norm(dim=1).argsort(stable=True)[:PICKS].cpu().numpy()

    return query


def contestants(network: Trained, classes: int, eps: float) -> dict[str, Query]:
    """Those that are installed and fit the network and its pool; the others are printed."""
    differences = {"method": "finite-difference", "xi": eps / 10, "num_iters": NUM_ITERS}
    found: dict[str, Query] = {
        "entropy": by_strategy(network, classes, "entropy"),
        "margin": by_strategy(network, classes, "margin"),
        "vaal": by_strategy(network, classes, "vaal", eps=eps, percentile=PERCENTILE),
        "vaal, one step": by_strategy(
            network, classes, "vaal", eps=eps, percentile=PERCENTILE, num_iters=1
        ),
        "vaal, unscreened": unscreened(network, classes, eps=eps),
        "vaal, amp auto": unscreened(network, classes, eps=eps, amp="auto"),
        "vaal, Ip 5": unscreened(network, classes, eps=eps, **differences),
        "published VAT": published(network, classes, eps),
    }
    if importlib.util.find_spec("skactiveml") is None:
        print("BADGE, CoreSet and TypiClust are left out: scikit-activeml is not installed")
    else:
        for name in ("BADGE", "CoreSet", "TypiClust"):
            reason = query_opponents.too_large(name, network)
            if reason:
                print(f"{name} is left out: {reason}")
            else:
                found[name] = by_strategy(network, classes, name.lower())
    if importlib.util.find_spec("baal") is None:
        print("BALD is left out: baal is not installed")
    elif not query_opponents.has_dropout(network.model):
        print(f"BALD is left out: {network.name} has no dropout")
    else:
        found["BALD"] = partial(query_opponents.bald, network, PICKS)
    if importlib.util.find_spec("foolbox") is None:
        print("DeepFool is left out: Foolbox is not installed (make opponents)")
    else:
        found["DeepFool"] = by_deepfool(network)
    return found


def timed(
    queries: dict[str, Query], pool: Tensor, rounds: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Seconds of every turn (NaN: it had none), [rounds], and what each picked, by contestant."""
    for query in queries.values():
        query(pool[:_WARM])
    seconds = {name: np.full(rounds, np.nan) for name in queries}
    picks = {}
    for number, order in enumerate(turns(list(queries), rounds)):
        for name in order:
            if number and np.nanmax(seconds[name]) > LONG:
                continue
            start = time.perf_counter()
            picks[name] = queries[name](pool)
            seconds[name][number] = time.perf_counter() - start
            print(f"{name:20}{seconds[name][number]:10.2f} s", flush=True)
    return seconds, picks


def nearly_the_maximum(network: Trained, eps: float) -> np.ndarray:
    scorer = LDRScorer(network.model, eps=eps, num_iters=8, sign="max", batch_size=_BATCH)
    return scorer.score(network.pool, progress=False).ldr


def share(picks: np.ndarray, others: set[int] | None) -> float | None:
    return None if others is None else len(set(picks.tolist()) & others) / len(picks)


def measure(
    network: Trained, eps: float, truth: np.ndarray | None, args
) -> list[dict[str, object]]:
    """The rows of one network under the present number of threads: timed and printed."""
    with torch.no_grad():
        logits = torch.cat([network.model(x) for x in network.pool.split(_BATCH)])
    classes, label = logits.shape[1], logits.argmax(1).cpu().numpy()
    queries = contestants(network, classes, eps)
    if args.only:
        queries = {name: queries[name] for name in queries if name in {*args.only, *_COMPARED}}
    seconds, picks = timed(queries, network.pool, args.rounds)
    true = None if truth is None else set(picked(truth, label, classes).tolist())
    top = None if truth is None else between(truth, PERCENTILE, 100)
    full = set(picks["vaal, unscreened"].tolist())
    print(f"\n{network.name}, {len(label)} samples, threads {torch.get_num_threads()}")
    print(f"{'':20}{'seconds':>10}{'x entropy':>11}{'full':>7}{'true':>7}{'top tenth':>11}")
    rows = []
    for name, values in seconds.items():
        # Round by round, so that what slows the machine for a while falls on both.
        ratio = float(np.nanmedian(values / seconds["entropy"]))
        shares = {
            "shared_full": share(picks[name], full),
            "shared_true": share(picks[name], true),
            "in_top_tenth": share(picks[name], top),
        }
        cells = [f"{value:.2f}" if value is not None else "" for value in shares.values()]
        print(
            f"{name:20}{np.nanmedian(values):10.2f}{ratio:11.2f}"
            f"{cells[0]:>7}{cells[1]:>7}{cells[2]:>11}",
            flush=True,
        )
        rows.append(
            {"network": network.name, "pool": len(label), "eps": eps, "query": name}
            | quantiles(values[~np.isnan(values)])
            | {"ratio_to_entropy": ratio}
            | shares
            | about(args.device)
        )
    return rows


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--data-root", type=Path, help="folder that holds MNIST/raw")
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10's images, a folder a class")
    parser.add_argument("--pool", type=int, default=10_000, help="samples of MNIST; 0: without it")
    parser.add_argument("--labels", type=options.positive, help="300 of MNIST, 100 of digits")
    parser.add_argument("--images", type=options.positive, default=2000, help="of CIFAR-10")
    parser.add_argument("--rounds", type=options.positive, default=3)
    parser.add_argument("--only", nargs="+", metavar="QUERY", help="these, entropy and unscreened")
    parser.add_argument("--no-truth", action="store_true", help="do not search for the maximum")
    args = parser.parse_args()
    dataset = "digits" if args.data_root is None else "mnist"
    labels = args.labels or (100 if args.data_root is None else 300)
    cases = []
    if args.pool:
        cases.append((trained(dataset, args.data_root, labels, args.pool, args.device), 0.1))
    if args.cifar is not None:
        cases.append((resnet(args.cifar, args.images, args.device), 0.11))
    table = Table(args.csv)
    for network, eps in cases:
        truth = None if args.no_truth else nearly_the_maximum(network, eps)
        for threads in options.threads_of(args):
            torch.set_num_threads(threads)
            table.add(measure(network, eps, truth, args))


if __name__ == "__main__":
    main()
