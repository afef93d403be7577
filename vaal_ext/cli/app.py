"""The commands: `vaal-ext info | score | select | run | report | reproduce | bench`.

What a command needs (torch, matplotlib) is imported when it runs, so that `--help` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from vaal_ext.cli.exit_status import exit_status
from vaal_ext.cli.options import batch_size_of, class_prior_of, fill, numbers
from vaal_ext.cli.reproduce import reproduce

app = typer.Typer(
    name="vaal-ext",
    help="Virtual Adversarial Active Learning: score a pool, choose what to label, compare.",
    epilog="With VAAL_TRACEBACK=1 in the environment an error shows where it came from.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

_DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder with MNIST/raw, FashionMNIST/raw, cifar-10-batches-py, or SVHN's .mat files."
    ),
]
_Preset = Annotated[
    Literal["paper"] | None,
    typer.Option(help="The paper's numbers (xi = eps = 2) for what is not given."),
]
_Xi = Annotated[
    float | None,
    typer.Option(help="Length of the finite-difference step, in units of the network's input."),
]
_Eps = Annotated[
    float | None, typer.Option(help="Length of the perturbation, in units of the network's input.")
]
_Method = Annotated[
    Literal["finite-difference", "fisher"],
    typer.Option(help="Gradients at x + xi u, or exact products with the Hessian at x (no xi)."),
]
_Sign = Annotated[
    Literal["paper", "max", "mean"],
    typer.Option(help="Roughness at x + r, or the larger or the mean of those at x + r and x - r."),
]
_Percentile = Annotated[float, typer.Option(help="Candidates rank above this percentile (PRT).")]
_ClassPrior = Annotated[
    str, typer.Option(help="Share of each class: uniform, predicted, none, or 0.2,0.3,0.5.")
]
_Order = Annotated[
    Literal["ascending", "descending", "random"],
    typer.Option(help="Upward from the threshold, from the roughest down, or at random."),
]
_Device = Annotated[
    str | None, typer.Option(help="cpu or cuda; by default cuda where there is one.")
]
_Backend = Annotated[
    Literal["fused", "reference"], typer.Option(help="The fused kernels, or plain PyTorch.")
]


@app.command()
def info() -> None:
    """Print versions, libraries, architectures and devices."""
    from vaal_ext.cli.info import describe

    for what, value in describe():
        print(f"{what + ':':<28}{value}")


@app.command()
def score(
    model: Annotated[str, typer.Option(help="The network, as package.module:factory.")],
    weights: Annotated[Path, typer.Option(help="Its state dict, saved by torch.save.")],
    data: Annotated[
        str,
        typer.Option(
            help="The pool: npz:PATH (array x), npy:PATH (mapped), folder:PATH (images), digits, "
            "mnist, fashion-mnist, svhn, cifar10."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The .npz file to write.")],
    data_root: _DataRoot = None,
    split: Annotated[
        Literal["train", "test"], typer.Option(help="The pool, or the test part of the data.")
    ] = "train",
    preset: _Preset = None,
    xi: _Xi = None,
    eps: _Eps = None,
    num_iters: Annotated[int, typer.Option(help="Gradient steps (the paper's Ip).")] = 5,
    method: _Method = "finite-difference",
    sign: _Sign = "paper",
    seed: Annotated[int, typer.Option(help="Of the start vectors.")] = 0,
    batch_size: Annotated[
        str, typer.Option(help="Samples at a time; auto tries several on the first samples.")
    ] = "256",
    workers: Annotated[int, typer.Option(help="Processes that decode the images of folder:.")] = 0,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Of images in bytes: the network sees (x/255 - mean)/std. One number, or one a "
            "channel with commas between."
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help="See --mean.")] = None,
    device: _Device = None,
    amp: Annotated[
        Literal["bf16", "fp16", "auto"] | None,
        typer.Option(
            help="Run the network under autocast; auto takes what is fastest and ranks alike."
        ),
    ] = None,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Run the network through torch.compile.")
    ] = False,
    backend: _Backend = "fused",
    on_nonfinite: Annotated[
        Literal["raise", "skip"],
        typer.Option(help="Where logits are not finite: stop, or leave the sample without score."),
    ] = "raise",
) -> None:
    """Compute the Local Distributional Roughness of every sample of a pool."""
    from vaal_ext.cli import commands

    (eps,) = fill(preset, eps=eps)
    (xi,) = fill(preset if method == "finite-difference" else None, xi=xi)
    print(
        commands.score(
            model,
            weights,
            data,
            out,
            data_root=data_root,
            split=split,
            xi=xi,
            eps=eps,
            num_iters=num_iters,
            method=method,
            sign=sign,
            seed=seed,
            batch_size=batch_size_of(batch_size),
            workers=workers,
            mean=numbers("mean", mean),
            std=numbers("std", std),
            device=device,
            amp=amp,
            compile_model=compile_model,
            backend=backend,
            on_nonfinite=on_nonfinite,
            progress=sys.stderr.isatty(),
        )
    )


@app.command()
def select(
    scores: Annotated[Path, typer.Option(help="What vaal-ext score wrote.")],
    n: Annotated[int, typer.Option("--n", help="Number of samples to choose.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    percentile: _Percentile = 90.0,
    class_prior: _ClassPrior = "uniform",
    order: _Order = "ascending",
    seed: Annotated[int, typer.Option(help="For --order random.")] = 0,
) -> None:
    """Choose a class-balanced query from the scores of a pool."""
    from vaal_ext.cli import commands

    prior = class_prior_of(class_prior)
    print(
        commands.select_query(
            scores, n, out, percentile=percentile, class_prior=prior, order=order, seed=seed
        )
    )


@app.command()
def run(
    dataset: Annotated[
        str,
        typer.Option(
            help="moons, circles, digits, mnist, fashion-mnist, svhn, cifar10, npz:PATH or "
            "folder:PATH (train/CLASS and test/CLASS, or CLASS)."
        ),
    ],
    strategy: Annotated[
        str, typer.Option(help="vaal, random, entropy, margin or dfal; each may have +vat.")
    ],
    out: Annotated[Path, typer.Option(help="The run's own folder; it goes on where it stopped.")],
    data_root: _DataRoot = None,
    initial: Annotated[int | None, typer.Option(help="Labels before the first query.")] = None,
    query_size: Annotated[int | None, typer.Option(help="Labels each query adds.")] = None,
    rounds: Annotated[int, typer.Option(help="Number of queries.")] = 10,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    pool_size: Annotated[
        int | None, typer.Option(help="Score only so many samples, drawn anew for every query.")
    ] = None,
    preset: _Preset = None,
    xi: _Xi = None,
    eps: _Eps = None,
    num_iters: Annotated[int | None, typer.Option(help="Gradient steps (the paper's Ip).")] = None,
    percentile: Annotated[
        float | None, typer.Option(help="Candidates rank above this percentile (PRT).")
    ] = None,
    class_prior: _ClassPrior = "uniform",
    order: _Order = "ascending",
    twins: Annotated[
        bool | None,
        typer.Option(help="dfal: train on adversarial twins of the queried samples too (default)."),
    ] = None,
    method: _Method = "finite-difference",
    sign: _Sign = "paper",
    vat_weight: Annotated[
        float | None, typer.Option(help="Of the regulariser, for strategies with +vat.")
    ] = None,
    vat_xi: Annotated[float | None, typer.Option(help="As --xi, of the regulariser.")] = None,
    vat_eps: Annotated[float | None, typer.Option(help="As --eps, of the regulariser.")] = None,
    vat_num_iters: Annotated[
        int | None, typer.Option(help="As --num-iters, of the regulariser.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of one training.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of one training step.")] = None,
    warm_start: Annotated[
        bool,
        typer.Option("--warm-start", help="Train on from the last round's weights, not afresh."),
    ] = False,
    device: _Device = None,
    backend: _Backend = "fused",
) -> None:
    """Run active learning on labelled data. What is not given depends on the data set."""
    from vaal_ext.experiment import loop

    eps, num_iters, percentile = fill(preset, eps=eps, num_iters=num_iters, percentile=percentile)
    (xi,) = fill(preset if method == "finite-difference" else None, xi=xi)
    vat_xi, vat_eps, vat_num_iters = fill(
        preset if strategy.endswith("+vat") else None,
        vat_xi=vat_xi,
        vat_eps=vat_eps,
        vat_num_iters=vat_num_iters,
    )
    config = loop.RunConfig(
        dataset=dataset,
        strategy=strategy,
        data_root=None if data_root is None else str(data_root),
        initial=initial,
        query_size=query_size,
        rounds=rounds,
        seed=seed,
        pool_size=pool_size,
        xi=xi,
        eps=eps,
        num_iters=num_iters,
        percentile=percentile,
        class_prior=class_prior_of(class_prior),
        order=order,
        twins=twins,
        method=method,
        sign=sign,
        vat_weight=vat_weight,
        vat_xi=vat_xi,
        vat_eps=vat_eps,
        vat_num_iters=vat_num_iters,
        learning_rate=learning_rate,
        steps=steps,
        batch_size=batch_size,
        warm_start=warm_start,
        device=device,
        backend=backend,
    )
    loop.run(config, out)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders that vaal-ext run wrote.")],
    out: Annotated[Path, typer.Option(help="The folder for tables and pictures.")],
) -> None:
    """Compare runs: learning curves, table, LDR histogram, the images queried."""
    from vaal_ext.report.write import write_report

    for line in write_report(runs, out):
        print(line, flush=True)


app.command()(reproduce)


@app.command()
def bench(
    name: Annotated[
        Literal["accuracy", "ops", "ldr", "deepfool", "pool", "stability", "precision"] | None,
        typer.Argument(help="Which benchmark; by default all."),
    ] = None,
    device: _Device = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(help="CPU threads; may be given again. By default 1, then 2 where there are."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the CSV files (made if it is not there).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer turns, float32 only.")] = False,
) -> None:
    """Measure accuracy and speed against plain PyTorch. Needs a clone of the repository."""
    from vaal_ext.cli import bench

    names = bench.NAMES if name is None else (name,)
    raise typer.Exit(bench.run(names, device, threads, out, quick=quick))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (by default the process's); returns the exit status."""
    return exit_status(typer.main.get_command(app), arguments)
