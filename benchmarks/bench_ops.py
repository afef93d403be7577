"""The fused ops beside what people write in PyTorch: ratios in one process, opponents in turn.

    python benchmarks/bench_ops.py [--device cpu] [--threads 1 2] [--dtypes float32] [--csv FILE]

The contestants are in op_cases.py. `symmetric_kl` and `forward_kl` are value plus gradient by the
perturbed logits:

    vaal_ext             ops.symmetric_kl_direction: one pass, the gradient's rows scaled to 1
    vaal_ext, autograd   ops.symmetric_kl and torch.autograd.grad: exact gradient, two passes
    eager autograd       F.kl_div with log_softmax, and torch.autograd.grad
    by hand              the same formula and its gradient written out in PyTorch
    torch.compile        the latter, compiled
    Liger-Kernel         its forward KL on log_softmax (CUDA only, where it is installed)
    clone                one copy of the first input
    copy                 the same into memory that is there already (CPU only: the allocator of
                         CUDA keeps its memory, so that clone() is no more than the copy)

A ratio above 1 says that ours is faster; losses are printed like wins. The bandwidth of copying is
that of the faster copy, which reads and writes its bytes once each. The answers are judged
before anything is timed: a contestant that computes something else ends the benchmark, one that is
right at half the rows and far off at the worst is timed and marked "off by".

On CUDA every contest is held twice, see cuda_timing.py: launched from a graph and from Python.
Liger-Kernel waits for the device, so it has no part in the first.
"""

from __future__ import annotations

from functools import partial

import cuda_timing
import numpy as np
import options
import torch
from op_cases import (
    LIGER,
    OURS,
    WRONG,
    Case,
    WrongAnswer,
    deepfool_case,
    fisher_case,
    fisher_direction_case,
    kl_case,
    perturb_case,
    random_perturb_case,
    summary_case,
)
from timing import Table, about, quantiles, timed

LOGITS = [(1, 2), (256, 10), (4096, 10), (1024, 100), (1024, 1000), (512, 32000)]
IMAGES = [(256, 1, 28, 28), (256, 3, 32, 32), (64, 3, 224, 224)]
GRADIENTS = [(256, 9, 1, 28, 28), (256, 9, 3, 32, 32), (8, 9, 3, 224, 224)]
# op -> (makes the case, shapes)
GRID = {
    "symmetric_kl": (partial(kl_case, divergence="symmetric"), LOGITS),
    "forward_kl": (partial(kl_case, divergence="forward"), [(256, 10), (1024, 1000)]),
    "fisher_product": (fisher_case, LOGITS),
    "fisher_direction": (fisher_direction_case, LOGITS),
    "perturb": (perturb_case, IMAGES),
    "random_perturb": (random_perturb_case, IMAGES),
    "deepfool_step": (deepfool_case, GRADIENTS),
    "posterior_summary": (summary_case, LOGITS),
}


def contests(case: Case, seconds: float, device: torch.device):
    """Yields (how the calls were launched, seconds by contestant)."""
    if device.type != "cuda":
        calls = {name: partial(call, *case.inputs) for name, call in case.contestants.items()}
        calls["copy"] = partial(torch.empty_like(case.inputs[0]).copy_, case.inputs[0])
        yield "call", timed(calls, seconds, device)
        return
    capturable = {name: call for name, call in case.contestants.items() if name != LIGER}
    yield "graph", cuda_timing.timed(capturable, case.inputs, seconds, device, "graph")
    yield "stream", cuda_timing.timed(case.contestants, case.inputs, seconds, device, "stream")


def measure(op: str, shape: tuple[int, ...], dtype: torch.dtype, args) -> list[dict[str, object]]:
    """The rows of one op at one shape: judged, timed and printed."""
    torch.manual_seed(0)
    make, _ = GRID[op]
    case = make(shape, dtype, args.device)
    errors, rows = case.judged(), []
    facts = {"op": op, "shape": "x".join(map(str, shape)), "dtype": str(dtype).split(".")[1]}
    for launch, seconds in contests(case, args.seconds, args.device):
        median = {name: np.median(values) for name, values in seconds.items()}
        copy = min(median["clone"], median.get("copy", median["clone"]))
        rate = 2 * case.inputs[0].nbytes / copy
        print(
            f"\n{op} {shape} {facts['dtype']}, threads {torch.get_num_threads()}, {launch}: "
            f"{median[OURS] * 1e6:.1f} us, "
            f"{case.bytes / median[OURS] / rate:.0%} of the copy bandwidth"
        )
        for name, values in seconds.items():
            half, worst = errors.get(name, (None, None))
            ratio = median[name] / median[OURS]
            if name != OURS:
                off = f"  (off by {worst:.0e} at the worst row)" if worst and worst > WRONG else ""
                print(f"    {ratio:7.2f} x our time: {name}{off}")
            rows.append(
                facts
                | {"launch": launch, "opponent": name, **quantiles(values)}
                | {"ratio_to_ours": ratio, "error_median": half, "error_worst": worst}
                | {"bytes": case.bytes}
                | {"share_of_copy_bandwidth": case.bytes / median[name] / rate}
                | about(args.device)
            )
    return rows


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument(
        "--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"]
    )
    parser.add_argument("--ops", nargs="+", choices=list(GRID), default=list(GRID))
    parser.add_argument("--seconds", type=float, default=0.7, help="for one op at one shape")
    args = parser.parse_args()
    print(
        "0.56 x our time: what is named takes 0.56 times as long as vaal_ext, so it is faster; "
        "3 x: vaal_ext is three times as fast. clone and copy read and write as many bytes as the "
        "input has, and compute nothing."
    )
    table = Table(args.csv)
    for threads in options.threads_of(args):
        torch.set_num_threads(threads)
        for op in args.ops:
            for name in args.dtypes:
                for shape in GRID[op][1]:
                    try:
                        table.add(measure(op, shape, getattr(torch, name), args))
                    except WrongAnswer as error:
                        raise SystemExit(f"{op} {shape} {name}: {error}") from None
    print(", ".join(f"{key} {value}" for key, value in about(args.device).items()))


if __name__ == "__main__":
    main()
