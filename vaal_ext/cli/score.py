"""`vaal-ext score`: the scores of a pool."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from vaal_ext.cli.exit_status import keeping
from vaal_ext.cli.options import (
    Backend,
    DataRoot,
    Device,
    Method,
    NumIters,
    OnUnreadable,
    Preset,
    Sign,
    Workers,
    Xi,
    batch_size_of,
    eps_of,
    fill,
    numbers,
    search_of,
)

__all__ = ["score"]


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
    xi: Xi = None,
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
    workers: Workers = 0,
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
    from vaal_ext.cli.work import score as work
    from vaal_ext.cli.work.torchrun import launched, rank

    radius, method = fill(preset, eps=eps_of(eps), method=method)
    num_iters, xi = fill(search_of(preset, method), num_iters=num_iters, xi=xi)
    again = "to begin again" if out.suffix == ".npz" else "to go on"
    again += ", by torchrun as before" if launched() else ""
    # Of torchrun's processes one speaks for all.
    with keeping(partial(work.kept, out), again) if rank() == 0 else nullcontext():
        line = work.score(
            work.Network(model, weights, device),
            work.Source(
                data,
                data_root,
                split,
                on_unreadable,
                mean=numbers("mean", mean),
                std=numbers("std", std),
            ),
            work.Target(out, above, shard_size),
            work.Search(method, num_iters, xi, radius),
            sign=sign,
            seed=seed,
            batch_size=batch_size_of(batch_size),
            num_workers=workers,
            amp=amp,
            compile_model=compile_model,
            backend=backend,
            on_nonfinite=on_nonfinite,
        )
        print(line)
