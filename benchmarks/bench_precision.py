"""What rounding does to the ranking of a pool: by number format, by xi, by method.

    python benchmarks/bench_precision.py [--device cpu] [--data-root ROOT] [--csv FILE]

Networks trained on digits (and on MNIST, if ROOT holds it) as active learning does, see trained.py;
5 iterations, eps 0.1 in pixels of [0, 1], the same start vectors everywhere. Spearman's correlation
of the scores with those of the network and the arithmetic in float64, of the same divergence and
at the same xi: what is left is rounding.

    vaal_ext          LDRScorer, finite differences; amp "bf16" and "fp16" are its own
    vaal_ext, direct  LDRScorer as it is by default: neither start nor xi, and no iteration
    vaal_ext, fisher  LDRScorer(method="fisher"), which has no xi
    vat               the published loop (vat_loops.py): forward KL by F.kl_div, batch mean, norm +
                      1e-8. Its network runs under autocast too, its KL in float32 on those logits
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import options
import torch
import vat_loops
from timing import Table, about
from torch import Tensor
from trained import Trained, add_network_options, networks

from vaal_ext import LDRScorer
from vaal_ext.pool.batch_run import AMP
from vaal_ext.pool.trials import rank_correlation
from vaal_ext.reference import random_perturb

XIS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
EPS, NUM_ITERS = 0.1, 5
DIFFERENCES = {"method": "finite-difference", "num_iters": NUM_ITERS}
FORMATS = {"float32": None, "bfloat16": "bf16", "float16": "fp16"}
_BATCH = 256


def ours(model, pool: Tensor, amp: str | None, **settings) -> np.ndarray:
    """[N]; a sample whose logits were not finite counts as the smoothest."""
    scorer = LDRScorer(
        model,
        eps=EPS,
        amp=amp,
        batch_size=_BATCH,
        on_nonfinite="skip",
        **settings,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LDR is 0")  # a step lost in rounding: measured
        return np.nan_to_num(scorer.score(pool, progress=False).ldr, nan=-1.0)


def vat(model, pool: Tensor, amp: str | None, xi: float) -> np.ndarray:
    """[N], from the same starts."""

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=AMP[amp], enabled=amp is not None):
            return model(x).float()

    index = torch.arange(len(pool), device=pool.device)
    u = random_perturb(torch.zeros_like(pool), 1.0, seed=0, sample_index=index)
    settings = {"xi": xi, "eps": EPS, "num_iters": NUM_ITERS, "input_only": True}
    parts = zip(pool.split(_BATCH), u.split(_BATCH), strict=True)
    scores = torch.cat([vat_loops.vat(forward, x, start, **settings) for x, start in parts])
    return np.nan_to_num(scores.double().cpu().numpy(), nan=-1.0)


def correlations(network: Trained) -> dict[tuple[str, str, float | None], float]:
    """By (method, format, xi)."""
    model, pool = network.model, network.pool
    exact, exact_pool = copy.deepcopy(model).double(), pool.double()
    found = {}
    for xi in XIS:
        truths = {
            name: ours(exact, exact_pool, None, **DIFFERENCES, xi=xi, divergence=name)
            for name in ("symmetric", "forward")
        }
        for form, amp in FORMATS.items():
            scores = ours(model, pool, amp, **DIFFERENCES, xi=xi)
            found["vaal_ext", form, xi] = rank_correlation(scores, truths["symmetric"])
            scores = vat(model, pool, amp, xi)
            found["vat", form, xi] = rank_correlation(scores, truths["forward"])
    for method in ("direct", "fisher"):
        truth = ours(exact, exact_pool, None, method=method)
        for form, amp in FORMATS.items():
            scores = ours(model, pool, amp, method=method)
            found[f"vaal_ext, {method}", form, None] = rank_correlation(scores, truth)
    return found


def main() -> None:
    parser = options.parser(__doc__, threads=False)
    add_network_options(parser, mnist_samples=300)
    args = parser.parse_args()
    where, table = about(args.device), Table(args.csv)
    for network in networks(args.device, args.samples, args.data_root, args.mnist_samples):
        found = correlations(network)
        print(f"\n{network.name}, Spearman's correlation with float64 (1: the same ranks)")
        print(f"{'':28}" + "".join(f"{f'xi = {xi:g}':>12}" for xi in XIS))
        for method, form in dict.fromkeys(key[:2] for key in found):
            mine = {key[2]: value for key, value in found.items() if key[:2] == (method, form)}
            cells = "".join(f"{mine.get(xi, mine.get(None)):12.4f}" for xi in XIS)
            print(f"{f'{method}, {form}':28}{cells}")
        facts = {"network": network.name, "samples": len(network.pool), "eps": EPS}
        rows = []
        for (method, form, xi), value in found.items():
            row = {"method": method, "format": form, "xi": xi, "correlation": value}
            rows.append(facts | row | where)
        table.add(rows)


if __name__ == "__main__":
    main()
