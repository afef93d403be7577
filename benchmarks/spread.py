"""Queries that are rough and spread, tried on the validation set: does one beat `margin` or BADGE?

    python benchmarks/spread.py digits [--seeds 6] [--first-seed 100] [--out CSV] [--query NAME]

The direct search gives each sample a vector besides its LDR: √LDR·u, u the unit perturbation, whose
squared length is the roughness. k-means++ over such vectors takes samples that are rough and lie
apart. Other vectors of the same length are √LDR times the unit embedding e (the last hidden layer),
and the outer products u⊗e and w⊗e, w the direction of the logits.

"k-means" is CLUE's way: it clusters the embedding, every sample weighted, and takes those nearest
to the centres. CLUE's weights are entropies; here they are LDR, its root, or λ.

Queries choose among all of the pool or among the candidates above a percentile of LDR. There is a
CSV row for each run: the area under the budget curve on the validation set and on the test set. A
call goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from vaal_ext import ops, select
from vaal_ext.experiment.config import RunConfig
from vaal_ext.experiment.datasets.load import DataSplit, load_dataset
from vaal_ext.experiment.each_round import Experiment
from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.network.last_linear import LastLinear
from vaal_ext.pool.scores import PoolScores
from vaal_ext.strategies import QueryContext, Strategy, make_strategy

EPS = 0.1
COLUMNS = ("data", "query", "seed", "val_area", "test_area")
Vectors = dict[str, np.ndarray]  # of M samples: arrays [M] or [M, K]
Pick = Callable[[Vectors, int, np.random.Generator], np.ndarray]


def vectors(model: nn.Module, pool: Tensor, batch: int = 512) -> Vectors:
    """What the direct search knows of every sample: LDR, λ, the posterior, and unit u, e and w."""
    found: dict[str, list[Tensor]] = {}
    model.eval()
    with LastLinear(model) as last:
        for x in pool.split(batch):
            x = x.clone().requires_grad_(True)
            logits = model(x)
            embedding, _ = last.of(logits.detach())
            w, curvature = ops.fisher_direction(logits.detach())
            (gradient,) = torch.autograd.grad(logits, x, w)
            moved = ops.perturb(x.detach(), gradient, EPS)
            with torch.no_grad():
                ldr = ops.symmetric_kl(logits.detach(), model(moved))
            for name, value in (
                ("ldr", ldr),
                ("curvature", curvature),
                ("posterior", logits.detach().softmax(1)),
                ("u", nn.functional.normalize(gradient.flatten(1))),
                ("embedding", embedding),
                ("e", nn.functional.normalize(embedding)),
                ("w", nn.functional.normalize(w)),
            ):
                found.setdefault(name, []).append(value)
    return {name: torch.cat(values).double().numpy() for name, values in found.items()}


def spread(left: str, right: str | None = None, roughness: str = "ldr") -> Pick:
    """k-means++ over √roughness·left, or √roughness·(left⊗right), longest first; products of two
    unit vectors are never formed."""

    def pick(of: Vectors, n: int, rng: np.random.Generator) -> np.ndarray:
        length = np.sqrt(of[roughness])
        a, b = of[left], np.ones((len(length), 1)) if right is None else of[right]

        def squares(to: int) -> np.ndarray:
            inner = length * length[to] * (a @ a[to]) * (b @ b[to])
            return np.maximum(0, length**2 + length[to] ** 2 - 2 * inner)

        chosen = [int(np.argmax(length))]
        nearest = squares(chosen[0])
        while len(chosen) < n:
            nearest[chosen] = 0
            chosen.append(int(rng.choice(len(nearest), p=nearest / nearest.sum())))
            nearest = np.minimum(nearest, squares(chosen[-1]))
        return np.array(chosen)

    return pick


def clustered(score: str, power: float = 1.0) -> Pick:
    """Those nearest to the centres of n clusters of the embedding, weighted by score^power."""

    def pick(of: Vectors, n: int, rng: np.random.Generator) -> np.ndarray:
        means = KMeans(n, random_state=int(rng.integers(2**31)))
        distance = means.fit_transform(of["embedding"], sample_weight=of[score] ** power)
        chosen: list[int] = []
        for column in distance.T:
            column[chosen] = np.inf
            chosen.append(int(column.argmin()))
        return np.array(chosen)

    return pick


def above(percentile: float, pick: Pick) -> Pick:
    """`pick` among the samples whose LDR ranks above the percentile."""

    def among(of: Vectors, n: int, rng: np.random.Generator) -> np.ndarray:
        order = np.argsort(of["ldr"], kind="stable")
        candidates = order[int(np.ceil(len(order) * percentile / 100)) :]
        return candidates[pick({k: v[candidates] for k, v in of.items()}, n, rng)]

    return among


def largest(score: str) -> Pick:
    return lambda of, n, rng: np.argsort(-of[score], kind="stable")[:n]


def algorithm_1(of: Vectors, n: int, rng: np.random.Generator) -> np.ndarray:
    return select(of["ldr"].astype(np.float32), of["posterior"].argmax(1), n)


QUERIES: dict[str, Pick | str] = {
    "margin": "margin",
    "entropy": "entropy",
    "badge": "badge",
    "clue": "clue",
    "vaal": algorithm_1,
    "the largest LDR": largest("ldr"),
    "the largest λ": largest("curvature"),
    "√LDR·u": spread("u"),
    "√LDR·e": spread("e"),
    "√LDR·u⊗e": spread("u", "e"),
    "√LDR·w⊗e": spread("w", "e"),
    "√λ·w⊗e": spread("w", "e", "curvature"),
    "√LDR·u, above 90": above(90, spread("u")),
    "√LDR·u, above 70": above(70, spread("u")),
    "√LDR·u⊗e, above 80": above(80, spread("u", "e")),
    "√LDR·u⊗e, above 70": above(70, spread("u", "e")),
    "√LDR·u⊗e, above 50": above(50, spread("u", "e")),
    "k-means, LDR": clustered("ldr"),
    "k-means, √LDR": clustered("ldr", 0.5),
    "k-means, λ": clustered("curvature"),
    "k-means, LDR, above 70": above(70, clustered("ldr")),
}


@dataclass(frozen=True)
class Picked(Strategy):
    """A query by a function of the vectors, as a strategy."""

    pick_from: Pick

    def score(self, model: nn.Module, pool: Tensor, context: QueryContext) -> PoolScores | None:
        object.__setattr__(self, "_found", vectors(model, pool))
        return None

    def pick(self, scores: PoolScores | None, n: int, context: QueryContext) -> np.ndarray:
        return self.pick_from(self._found, n, np.random.default_rng(context.seed))


def areas(dataset: str, query: str, seed: int, data: DataSplit) -> tuple[float, float]:
    """Of one run, on the validation set and on the test set, in percent."""
    config = RunConfig(dataset=dataset, strategy="random", seed=seed).resolved()
    pick = QUERIES[query]
    strategy = make_strategy(pick) if isinstance(pick, str) else Picked(pick)
    experiment = Experiment(replace(config, strategy=strategy), data, bars=False)
    state, _ = experiment.next_round(None)
    for _ in range(config.budget.rounds):
        state, _ = experiment.next_round(state)
    after = state.rounds[1:]
    return (
        100 * float(np.mean([row.val_accuracy for row in after])),
        100 * float(np.mean([row.test_accuracy for row in after])),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--query", action="append", choices=QUERIES, help="may be given again")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, default=Path("spread.csv"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    done = set()
    if given.out.exists():
        with open(given.out, newline="", encoding="utf-8") as file:
            done = {(r["data"], r["query"], int(r["seed"])) for r in csv.DictReader(file)}
    else:
        given.out.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        data = load_dataset(given.dataset, given.data_root, stream_seed(seed, Stream.SPLIT))
        for query in given.query or QUERIES:
            if (given.dataset, query, seed) not in done:
                val, test = areas(given.dataset, query, seed, data)
                with open(given.out, "a", newline="", encoding="utf-8") as file:
                    row = [given.dataset, query, seed, f"{val:.3f}", f"{test:.3f}"]
                    csv.writer(file, lineterminator="\n").writerow(row)


if __name__ == "__main__":
    main()
