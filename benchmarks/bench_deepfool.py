"""What a DeepFool perturbation costs, in a batch and one sample after another.

    python benchmarks/bench_deepfool.py [--device cpu] [--threads 1 2] [--batch-size 128]
        [--csv FILE]

The paper's CNN on 28x28 pixels, 10 classes, with random weights and the last layer scaled to logits
of standard deviation 3. In one process, taking turns:

    vaal_ext           deepfool on the batch
    plain              Algorithm 2 of Moosavi-Dezfooli et al. for one sample after another, with a
                       backward for every class as the authors' code has it: the gradients of the
                       parameters are computed too
    plain, input only  the same with gradients by the input alone
    Foolbox            L2DeepFoolAttack on the batch: a forward and a backward for every class

The plain ones get the first samples of the batch only; all times are per sample. Before anything is
timed the perturbations are compared: those of the plain loop must be ours to 1e-4, Foolbox's, which
lengthens every step by 1e-4, to 5e-2 (another class or another gradient is off by far more). Losses
are printed like wins. For the heap see bench_ldr.py. On CUDA TF32 is off.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import options
import torch
from bench_ldr import HAS_FOOLBOX, confident, keep_freed_memory, paper_cnn
from timing import Table, about, quantiles, timed
from torch import Tensor, nn

from vaal_ext.perturbation.deepfool import deepfool

OVERSHOOT, MAX_ITER = 0.02, 50
NETWORKS = {"PaperCNN, C = 10": paper_cnn}
ALLOWED = {"plain": 1e-4, "plain, input only": 1e-4, "Foolbox": 5e-2}
_BOUND = 1e6  # Foolbox clips to bounds, and nothing here reaches them


def plain(model: nn.Module, x: Tensor, *, input_only: bool) -> Tensor:
    """The perturbation of one sample x [1, ...], overshoot inside the loop."""
    own = model(x).argmax().item()
    total = torch.zeros_like(x)
    for _ in range(MAX_ITER):
        point = (x + (1 + OVERSHOOT) * total).requires_grad_()
        logits = model(point)[0]
        if logits.argmax() != own:
            break
        gradients = []
        for logit in logits:
            if input_only:
                gradients.append(torch.autograd.grad(logit, point, retain_graph=True)[0])
                continue
            point.grad = None
            logit.backward(retain_graph=True)
            gradients.append(point.grad)
        steps = {}
        for k in range(len(logits)):
            if k != own:
                w, gap = gradients[k] - gradients[own], abs((logits[k] - logits[own]).item())
                steps[gap / w.norm().item()] = gap / w.norm() ** 2 * w
        total = total + steps[min(steps)]
    model.zero_grad()
    return (1 + OVERSHOOT) * total


def one_by_one(model: nn.Module, x: Tensor, *, input_only: bool) -> Tensor:
    return torch.cat([plain(model, sample, input_only=input_only) for sample in x.split(1)])


def foolbox(model: nn.Module, x: Tensor) -> Tensor:
    from foolbox import PyTorchModel
    from foolbox.attacks import L2DeepFoolAttack
    from foolbox.criteria import Misclassification

    wrapped = PyTorchModel(model, bounds=(-_BOUND, _BOUND), device=x.device)
    with torch.no_grad():
        labels = model(x).argmax(1)
    attack = L2DeepFoolAttack(steps=MAX_ITER, candidates=None, overshoot=OVERSHOOT, loss="logits")
    return attack.run(wrapped, x, Misclassification(labels)) - x


def contestants(
    model: nn.Module, x: Tensor, few: int
) -> dict[str, tuple[int, Callable[[], Tensor]]]:
    """Name → (samples of a call, the call, which gives their perturbations)."""
    settings = {"overshoot": OVERSHOOT, "max_iter": MAX_ITER}
    calls: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "vaal_ext": (len(x), lambda: deepfool(model, x, **settings).perturbation),
        "plain": (few, lambda: one_by_one(model, x[:few], input_only=False)),
        "plain, input only": (few, lambda: one_by_one(model, x[:few], input_only=True)),
    }
    if HAS_FOOLBOX:
        calls["Foolbox"] = (len(x), lambda: foolbox(model, x))
    return calls


def differences(calls: dict[str, tuple[int, Callable[[], Tensor]]]) -> dict[str, float]:
    """The largest distance of an opponent's perturbations from ours, in our norms."""
    ours = calls["vaal_ext"][1]().flatten(1)
    found = {}
    for name, (count, call) in calls.items():
        if name != "vaal_ext":
            distance = (call().flatten(1) - ours[:count]).norm(dim=1)
            found[name] = float((distance / ours[:count].norm(dim=1)).max())
    return found


def judge(found: dict[str, float]) -> None:
    """Ends the benchmark where an opponent finds something else."""
    for name, difference in found.items():
        if not difference <= ALLOWED[name]:
            raise SystemExit(f"{name} is off by {difference:.1e}: nothing was timed")


def measure(network: str, model: nn.Module, x: Tensor, args: argparse.Namespace) -> list[dict]:
    """The rows of one network under the present number of threads: timed and printed."""
    calls = contestants(model, x, args.few)
    off = differences(calls)
    judge(off)
    iterations = deepfool(model, x, overshoot=OVERSHOOT, max_iter=MAX_ITER).iterations
    mean_iterations = iterations.double().mean().item()
    turns = timed({name: call for name, (_, call) in calls.items()}, args.seconds, args.device)
    seconds = {name: values / calls[name][0] for name, values in turns.items()}
    print(
        f"\n{network}, batch {len(x)}, threads {torch.get_num_threads()}, "
        f"{mean_iterations:.2f} iterations a sample"
    )
    print("x vaal_ext: so many times as long as vaal_ext (below 1: faster than it)")
    print(f"{'':20}{'ms a sample':>13}{'x vaal_ext':>12}{'off by':>10}")
    rows = []
    for name, values in seconds.items():
        # Round by round, so that what slows the machine for a while falls on both.
        ratio = float(np.median(values / seconds["vaal_ext"]))
        difference = f"{off[name]:10.1e}" if name in off else ""
        print(f"{name:20}{np.median(values) * 1e3:13.2f}{ratio:12.2f}{difference}")
        rows.append(
            {"network": network, "opponent": name, "samples": calls[name][0]}
            | quantiles(values)
            | {"ratio_to_ours": ratio, "error_max": off.get(name)}
            | {"iterations_mean": mean_iterations, "overshoot": OVERSHOOT, "max_iter": MAX_ITER}
            | about(args.device)
        )
    return rows


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--batch-size", type=options.positive, default=128)
    parser.add_argument(
        "--few", type=options.positive, default=8, help="samples of the plain ones' turns"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for one network")
    parser.add_argument(
        "--default-heap", action="store_true", help="leave the C library's allocator as it is"
    )
    args = parser.parse_args()
    if args.few > args.batch_size:
        parser.error(f"--few must be at most the batch size, got {args.few}")
    if not args.default_heap:
        keep_freed_memory()
    # In TF32 batches of different sizes take different convolutions, 1e-3 apart: no comparison.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(0)
    table = Table(args.csv)
    x = torch.rand(args.batch_size, 1, 28, 28, device=args.device)
    for network, factory in NETWORKS.items():
        model = confident(factory().to(args.device).eval(), x)
        for threads in options.threads_of(args):
            torch.set_num_threads(threads)
            table.add(measure(network, model, x, args))


if __name__ == "__main__":
    main()
