"""How wrong each way of computing the symmetric KL and its gradient is, by size of the step.

    python benchmarks/bench_accuracy.py [--device cpu] [--csv FILE]

Logits a of standard deviation 3 and 10 with b = a + s·noise, C in {2, 10, 100, 1000, 32000}. The
truth is the pivot formulas in float64 on the same float32 logits, which the tests hold against
50 digits. A row's error is relative: of J, and of the gradient with respect to b (‖·‖₂ of the row).
Rows below 1e-30 are left out, for float32 cannot hold them.

    vaal_ext      ops.symmetric_kl, float32
    textbook      Σ (q − p)(log q − log p) through autograd, in float32 and in float64
    two F.kl_div  two calls with log targets, through autograd, float32
    Liger-Kernel  what Liger-Kernel computes for log targets, e^log p (log p − log q), in PyTorch
                  (its kernels need a GPU); that is the forward KL, held against the forward KL
"""

from __future__ import annotations

import options
import torch
import torch.nn.functional as F
from timing import Table, about
from torch import Tensor

from vaal_ext import ops, reference

STEPS = [1.0, 1e-2, 1e-4, 1e-6]
CLASSES = {2: 1000, 10: 1000, 100: 1000, 1000: 200, 32000: 16}  # C -> rows
SPREADS = [3, 10]


def vaal(a: Tensor, b: Tensor) -> Tensor:
    return ops.symmetric_kl(a, b)


def textbook(a: Tensor, b: Tensor) -> Tensor:
    log_p, log_q = a.log_softmax(1), b.log_softmax(1)
    return ((log_q.exp() - log_p.exp()) * (log_q - log_p)).sum(1)


def kl_div(a: Tensor, b: Tensor) -> Tensor:
    log_p, log_q = a.log_softmax(1), b.log_softmax(1)
    forward = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    return (forward + F.kl_div(log_p, log_q, reduction="none", log_target=True)).sum(1)


def liger(a: Tensor, b: Tensor) -> Tensor:
    log_p = a.log_softmax(1)
    return (log_p.exp() * (log_p - b.log_softmax(1))).sum(1)


METHODS = {  # name -> formula, what it computes, dtype of its arithmetic
    "vaal_ext, float32": (vaal, "symmetric", torch.float32),
    "textbook, float32": (textbook, "symmetric", torch.float32),
    "textbook, float64": (textbook, "symmetric", torch.float64),
    "two F.kl_div, float32": (kl_div, "symmetric", torch.float32),
    "Liger-Kernel's formula, float32": (liger, "forward", torch.float32),
}


def errors(method, divergence: str, dtype, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Relative errors of value and gradient, of the rows that float32 can hold."""
    a, b = a.to(dtype), b.to(dtype, copy=True).requires_grad_()
    value = method(a, b)
    (gradient,) = torch.autograd.grad(value.sum(), b)
    exact_b = b.detach().double().requires_grad_()
    exact = reference.symmetric_kl(a.double(), exact_b, divergence=divergence)
    (exact_gradient,) = torch.autograd.grad(exact.sum(), exact_b)
    length = exact_gradient.norm(dim=1)
    value_error = ((value - exact).abs() / exact)[exact > 1e-30]
    gradient_error = ((gradient - exact_gradient).norm(dim=1) / length)[length > 1e-30]
    return value_error.detach(), gradient_error


def summary(error: Tensor) -> dict[str, float]:
    return {"rows": len(error), "median": error.median().item(), "worst": error.max().item()}


def main() -> None:
    parser = options.parser(__doc__, threads=False)
    args = parser.parse_args()
    where, table = about(args.device), Table(args.csv)
    print("relative error, median / worst row, over all C and both spreads")
    header = "".join(f"{f's = {step:g}':>22}" for step in STEPS)
    for kind in ("J", "gradient"):
        print(f"\n{kind:<32}{header}")
        for name, method in METHODS.items():
            cells = []
            for step in STEPS:
                found, rows = [], []
                for cols, count in CLASSES.items():
                    for spread in SPREADS:
                        generator = torch.Generator().manual_seed(cols * 1000 + spread)
                        a = torch.randn(count, cols, generator=generator) * spread
                        b = a + step * torch.randn(count, cols, generator=generator)
                        pair = errors(*method, a.to(args.device), b.to(args.device))
                        error = pair[0 if kind == "J" else 1]
                        found.append(error)
                        facts = {"method": name, "what": kind, "step": step, "classes": cols}
                        rows.append(facts | {"spread": spread} | summary(error) | where)
                facts = {"method": name, "what": kind, "step": step}
                facts |= {"classes": "all", "spread": "all"} | summary(torch.cat(found))
                cells.append("{median:.1e} / {worst:.1e}".format(**facts))
                rows.append(facts | where)
                table.add(rows)
            print(f"{name:<32}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
