"""`vaal-ext run`: active learning on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaal_ext.cli.exit_status import keeping
from vaal_ext.cli.options import (
    Backend,
    ClassPrior,
    DataRoot,
    Device,
    Method,
    NumIters,
    OnUnreadable,
    Order,
    PoolSize,
    Preset,
    Search,
    Sign,
    Steps,
    Xi,
    class_prior_of,
    fill,
    percentile_of,
    refuse_options_of_vaal,
    search_of,
)

__all__ = ["run"]


def run(
    dataset: Annotated[
        str,
        typer.Option(
            help="moons, circles, moons-100, circles-100, digits, mnist, fashion-mnist, svhn, "
            "cifar10, npz:PATH or folder:PATH (train/CLASS and test/CLASS, or CLASS)."
        ),
    ],
    strategy: Annotated[
        str,
        typer.Option(
            help="vaal, random, entropy, margin, dfal or bald; of scikit-activeml badge, clue, "
            "contrastive, coreset, dropquery, falcun, maxherding, probcover, typiclust. Each may "
            "have +vat."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run's own folder; it goes on where it stopped.")],
    data_root: DataRoot = None,
    initial: Annotated[int | None, typer.Option(help="Labels before the first query.")] = None,
    query_size: Annotated[int | None, typer.Option(help="Labels each query adds.")] = None,
    rounds: Annotated[int, typer.Option(help="Number of queries.")] = 10,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    pool_size: PoolSize = None,
    preset: Preset = None,
    xi: Xi = None,
    eps: Annotated[
        float | None,
        typer.Option(
            help="Length of the perturbation, in units of the network's input; for npz: and "
            "folder: a fiftieth of the samples' length unless given."
        ),
    ] = None,
    num_iters: NumIters = None,
    percentile: Annotated[
        str | None,
        typer.Option(
            help="Candidates rank above this percentile (PRT); accuracy: above the percentage of "
            "the validation set that the network gets right."
        ),
    ] = None,
    class_prior: ClassPrior = "uniform",
    order: Order = "ascending",
    twins: Annotated[
        bool | None,
        typer.Option(help="dfal: train on adversarial twins of the queried samples too (default)."),
    ] = None,
    method: Method = None,
    sign: Sign = "paper",
    vat_weight: Annotated[
        float | None, typer.Option(help="Of the regulariser, for strategies with +vat.")
    ] = None,
    vat_method: Annotated[
        Search | None,
        typer.Option(help="As --method, of the regulariser."),
    ] = None,
    vat_xi: Annotated[float | None, typer.Option(help="As --xi, of the regulariser.")] = None,
    vat_eps: Annotated[float | None, typer.Option(help="As --eps, of the regulariser.")] = None,
    vat_num_iters: Annotated[
        int | None, typer.Option(help="As --num-iters, of the regulariser.")
    ] = None,
    vat_decay: Annotated[
        float | None,
        typer.Option(help="Share of the steps in which the rate falls to 0, with the regulariser."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.")] = None,
    steps: Steps = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of one training step.")] = None,
    warm_start: Annotated[
        bool,
        typer.Option("--warm-start", help="Train on from the last round's weights, not afresh."),
    ] = False,
    device: Device = None,
    backend: Backend = "fused",
    on_unreadable: OnUnreadable = "raise",
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard: the rounds' numbers, LDR.")
    ] = None,
) -> None:
    """Run active learning on labelled data. What is not given depends on the data set."""
    from vaal_ext.experiment import loop
    from vaal_ext.strategies import parse_strategy

    name, regularised = parse_strategy(strategy)
    is_vaal = name == "vaal"
    if not is_vaal:
        given = {
            "xi": xi, "eps": eps, "num-iters": num_iters, "percentile": percentile,
            "class-prior": None if class_prior == "uniform" else class_prior,
            "order": None if order == "ascending" else order,
            "method": method,
            "sign": None if sign == "paper" else sign,
            "preset": None if regularised else preset,
        }  # fmt: skip
        refuse_options_of_vaal(strategy, given)
    paper = preset if is_vaal else None
    eps, threshold, method = fill(
        paper, eps=eps, percentile=percentile_of(percentile), method=method
    )
    num_iters, xi = fill(search_of(paper, method), num_iters=num_iters, xi=xi)
    of_vat = preset if regularised else None
    vat_eps, vat_method = fill(of_vat, vat_eps=vat_eps, vat_method=vat_method)
    vat_num_iters, vat_xi = fill(
        search_of(of_vat, vat_method), vat_num_iters=vat_num_iters, vat_xi=vat_xi
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
        percentile=threshold,
        class_prior=class_prior_of(class_prior),
        order=order,
        twins=twins,
        method=method,
        sign=sign,
        vat_weight=vat_weight,
        vat_method=vat_method,
        vat_xi=vat_xi,
        vat_eps=vat_eps,
        vat_num_iters=vat_num_iters,
        vat_decay=vat_decay,
        learning_rate=learning_rate,
        steps=steps,
        batch_size=batch_size,
        warm_start=warm_start,
        device=device,
        backend=backend,
        on_unreadable=on_unreadable,
    )
    with keeping(f"the finished rounds are kept in {out}"):
        loop.run(config, out, tensorboard=tensorboard)
