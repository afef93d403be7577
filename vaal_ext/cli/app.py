"""The commands: `vaal-ext info | score | select | run | report | reproduce | bench`, and for people
who label `query | label | train | predict`.

What a command needs (torch, matplotlib) is imported when it runs, so that `--help` is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vaal_ext.cli.exit_status import exit_status, keeping
from vaal_ext.cli.labelling import label, predict, query, train
from vaal_ext.cli.options import batch_size_of, class_prior_of, eps_of, fill, numbers, search_of
from vaal_ext.cli.reproduce import reproduce
from vaal_ext.cli.run import run
from vaal_ext.cli.shared import (
    Backend,
    ClassPrior,
    DataRoot,
    Device,
    Method,
    NumIters,
    OnUnreadable,
    Order,
    Percentile,
    Preset,
    Sign,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="vaal-ext",
    help="Virtual Adversarial Active Learning: score a pool, choose what to label, compare.",
    epilog="With VAAL_TRACEBACK=1 in the environment an error shows where it came from.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def info() -> None:
    """Print versions, libraries, architectures and devices."""
    from vaal_ext.cli.info import describe

    for what, value in describe():
        print(f"{what + ':':<28}{value}")


@app.command()
def score(
    model: Annotated[str, typer.Option(help="The network, as package.module:factory.")],
    weights: Annotated[
        Path,
        typer.Option(
            help="Its state dict, saved by torch.save or as .safetensors, or a checkpoint with one."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="The pool: npz:PATH (array x), npy:PATH (mapped), folder:PATH (images), digits, "
            "mnist, fashion-mnist, svhn, cifar10."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The .npz file to write; any other name: a folder of shards.")
    ],
    data_root: DataRoot = None,
    split: Annotated[
        Literal["train", "test"], typer.Option(help="The pool, or the test part of the data.")
    ] = "train",
    preset: Preset = None,
    xi: Annotated[
        float | None,
        typer.Option(
            help="Of --method finite-difference: its step, in the units of eps; by default a tenth."
        ),
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|auto",
            help="Length of the perturbation, in units of the network's input; auto, the default "
            "for data of your own: a fiftieth of the samples' length.",
        ),
    ] = None,
    num_iters: NumIters = None,
    method: Method = None,
    sign: Sign = "paper",
    seed: Annotated[int, typer.Option(help="Of the start vectors.")] = 0,
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|auto", help="Samples at a time; auto tries several on the first ones."
        ),
    ] = "256",
    workers: Annotated[int, typer.Option(help="Processes that decode the images of folder:.")] = 0,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER[,...]",
            help="Of images in bytes: the network sees (x/255 - mean)/std. One number, or one a "
            "channel with commas between.",
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="NUMBER[,...]", help="See --mean.")] = None,
    device: Device = None,
    amp: Annotated[
        Literal["bf16", "fp16", "auto"] | None,
        typer.Option(
            help="Run the network under autocast; auto takes what is fastest and ranks alike."
        ),
    ] = None,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Run the network through torch.compile.")
    ] = False,
    backend: Backend = "fused",
    on_nonfinite: Annotated[
        Literal["raise", "skip"],
        typer.Option(help="Where logits are not finite: stop, or leave the sample without score."),
    ] = "raise",
    on_unreadable: OnUnreadable = "raise",
    above: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENTILE",
            help="For an .npz: LDR only where it can rank above this percentile, which is all that "
            "vaal-ext select with it or a higher one needs; most samples are left out (ldr -inf).",
        ),
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option(
            help="Samples in a shard, for a folder only; by default its own, 131072 in a new one."
        ),
    ] = None,
) -> None:
    """Compute the Local Distributional Roughness of every sample of a pool."""
    from vaal_ext.cli import commands
    from vaal_ext.cli.torchrun import launched, rank

    radius, method = fill(preset, eps=eps_of(eps), method=method)
    num_iters, xi = fill(search_of(preset, method), num_iters=num_iters, xi=xi)
    again = "to begin again" if out.suffix == ".npz" else "to go on"
    again += ", by torchrun as before" if launched() else ""
    # Of torchrun's processes one speaks for all.
    with keeping(partial(commands.kept, out), again) if rank() == 0 else nullcontext():
        print(
            commands.score(
                model,
                weights,
                data,
                out,
                data_root=data_root,
                split=split,
                xi=xi,
                eps=radius,
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
                on_unreadable=on_unreadable,
                above=above,
                shard_size=shard_size,
                progress=True,
            )
        )


@app.command()
def select(
    scores: Annotated[Path, typer.Option(help="What vaal-ext score wrote.")],
    n: Annotated[int, typer.Option("--n", help="Number of samples to choose.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    percentile: Percentile = 90.0,
    class_prior: ClassPrior = "uniform",
    order: Order = "ascending",
    seed: Annotated[int, typer.Option(help="For --order random.")] = 0,
) -> None:
    """Choose a class-balanced query from the scores of a pool."""
    from vaal_ext.cli import commands

    prior = class_prior_of(class_prior)
    with keeping(f"{out} is written whole or not at all", "to begin again"):
        print(
            commands.select_query(
                scores, n, out, percentile=percentile, class_prior=prior, order=order, seed=seed
            )
        )


app.command()(run)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders that vaal-ext run wrote.")],
    out: Annotated[Path, typer.Option(help="The folder for tables and pictures.")],
) -> None:
    """Compare runs: learning curves, table, LDR histogram, the images queried."""
    from vaal_ext.report.write import write_report

    with keeping(f"what was written in {out} is whole, the rest is missing", "to write all"):
        for line in write_report(runs, out):
            print(line, flush=True)


for _command in (reproduce, query, label, train, predict):
    app.command()(_command)


@app.command()
def bench(
    name: Annotated[
        Literal[
            "accuracy",
            "ops",
            "ldr",
            "deepfool",
            "pool",
            "stability",
            "direction",
            "precision",
            "search",
            "query",
        ]
        | None,
        typer.Argument(help="Which benchmark; by default all."),
    ] = None,
    device: Device = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(help="CPU threads; may be given again. By default 1, then 2 where there are."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the CSV files (made if it is not there).")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder with MNIST/raw, for networks trained on it beside digits."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer turns, float32 only.")] = False,
) -> None:
    """Measure accuracy and speed against plain PyTorch. Needs a clone of the repository."""
    from vaal_ext.cli import bench

    names = bench.NAMES if name is None else (name,)
    kept = "what was printed is all there is" + ("" if out is None else f", {out} got no table")
    with keeping(kept, "to begin again"):
        status = bench.run(names, device, threads, out, data_root, quick=quick)
    raise typer.Exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (by default the process's); returns the exit status."""
    command = typer.main.get_command(app)
    _name_no_type_of_flags(command)
    return exit_status(command, arguments)


def _name_no_type_of_flags(group: Any) -> None:
    """--help shows --compile alone: "--compile <bool>", as typer has it, looks like one value."""
    for command in (group, *group.commands.values()):
        help_option = command.get_help_option(typer.Context(command))
        for option in (*command.params, help_option):
            if getattr(option, "is_flag", False):
                option.metavar = ""
