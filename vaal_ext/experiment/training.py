"""The network of a data set, trained and evaluated."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from vaal_ext.checks import require_int, require_positive
from vaal_ext.cuda.graphs import replayed, require_cuda_graph
from vaal_ext.cuda.recorder import BatchFn
from vaal_ext.cuda.transfers import to_device
from vaal_ext.experiment.datasets.load import DataSplit
from vaal_ext.experiment.seeds import seeded
from vaal_ext.models import network_for
from vaal_ext.network.logits import forward_of, warn_of_probabilities
from vaal_ext.network.state import borrowed, tensors_of, unwrapped
from vaal_ext.progress import progress_bar
from vaal_ext.vat import VatTerm

__all__ = ["evaluate", "model_for", "train"]

_EVALUATION_BATCH = 512


def model_for(dataset: DataSplit, *, seed: int) -> nn.Module:
    """A fresh network for a data set, see :func:`vaal_ext.models.network_for`."""
    return network_for(tuple(dataset.train_x.shape[1:]), dataset.num_classes, seed=seed)


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    progress: bool = False,
    cuda_graph: bool | str = "auto",
    vat: VatTerm | None = None,
    on_step: Callable[[int], None] | None = None,
) -> float:
    """Minimise the cross-entropy with Adam for a fixed number of steps, in place.

    With `vat` the loss is that of Eq. 3: its second term is the mean over a batch drawn from all
    samples, labelled and unlabelled, as large as `batch_size` allows; and the learning rate falls
    at the end, if the regulariser's settings say so.

    Within an epoch the host never waits for the device, and copies nothing to it, unless `on_step`
    does.

    Args:
        model: the network, on the device of ``x``; it is left in training mode.
        x: samples float32 [N, ...].
        y: labels int64 [N].
        steps: number of optimiser steps.
        learning_rate: Adam's, > 0.
        batch_size: samples a step; a smaller training set is one batch.
        seed: of the order of the batches and of dropout; torch's global generators are left alone.
        progress: whether to show a bar if it takes longer than two seconds.
        cuda_graph: on a CUDA device, replay the step as a CUDA graph; see
            :func:`vaal_ext.cuda.graphs.replayed`. The optimiser and the random numbers are the
            same with and without, and so is the regulariser, which is part of the graph.
        vat: the regulariser; its batches come from its own seed. None trains without.
        on_step: called after every step with the number of steps taken, to watch the network.

    Returns:
        The mean training loss (dropout on, regulariser included) of the last tenth of the steps.

    Raises:
        TypeError: steps or batch_size is no int, learning_rate no number.
        ValueError: one of them is out of its range; there are no samples, or not a label for each;
            cuda_graph is none of its values, or True without a CUDA device.
    """
    require_cuda_graph(cuda_graph)
    require_int("steps", steps, 1)
    require_int("batch_size", batch_size, 1)
    require_positive("learning_rate", learning_rate)
    if len(y) == 0 or len(x) != len(y):
        raise ValueError(f"x and y must have one length, at least 1, got {len(x)} and {len(y)}")
    # Capturable keeps the number of the step on the device, as a graph needs it; a rate that is a
    # tensor can be changed between the replays.
    optimiser = torch.optim.Adam(
        model.parameters(),
        lr=torch.tensor(learning_rate, device=x.device) if x.is_cuda else learning_rate,
        capturable=x.is_cuda,
    )
    decay = 0.0 if vat is None else vat.settings.decay
    schedule = LambdaLR(optimiser, partial(_share_of_rate, steps=steps, decay=decay))
    size = min(batch_size, len(y))
    model.train()

    def step(batch: Tensor) -> tuple[Tensor]:
        labelled = batch[:size]
        loss = functional.cross_entropy(model(x[labelled]), y[labelled])
        if vat is not None:
            loss = loss + vat(model, batch[size:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return (loss.detach(),)

    def after(taken: int) -> None:
        if decay:  # a constant rate is left alone: on a GPU the schedule launches work
            schedule.step()
        if on_step is not None:
            on_step(taken)

    bar = progress_bar(range(steps), show=progress, desc="training", unit="step")
    with seeded(seed, x.device), warnings.catch_warnings():
        # The first steps are eager on purpose; the optimiser takes that for an oversight.
        warnings.filterwarnings("ignore", message=".*constructed with capturable=True")
        batches = _batches(len(y), size, x.device)
        if vat is not None:
            generator = torch.Generator().manual_seed(vat.seed)
            others = _batches(len(vat.x), min(batch_size, len(vat.x)), x.device, generator)
            batches = map(torch.cat, zip(batches, others, strict=True))
        replay = replayed(step, x.device, cuda_graph, tensors_of(model))
        return _last_tenth(replay, batches, bar, after).item()


def _share_of_rate(taken: int, steps: int, decay: float) -> float:
    """The learning rate's factor after `taken` steps: 1, then down to 0 over the last `decay`."""
    return 1.0 if taken <= (1.0 - decay) * steps else (steps - taken) / (decay * steps)


def _last_tenth(
    step: BatchFn, batches: Iterator[Tensor], bar: tqdm, after: Callable[[int], None]
) -> Tensor:
    """Takes all the steps. Gives the mean loss of the last tenth, on the device, without waiting.

    `after` is called with the number of steps taken, after each.
    """
    counted = max(1, bar.total // 10)
    losses = []
    for number in bar:
        (loss,) = step(next(batches))
        if number >= bar.total - counted:
            losses.append(loss.clone())  # a graph writes every loss to the same place
        after(number + 1)
    return torch.stack(losses).mean()


def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Accuracy in [0, 1] and mean cross-entropy (nats) on samples [N, ...] with labels int64 [N].

    In eval mode and without gradients; the model is afterwards as it was. Its outputs are checked
    like those in :func:`vaal_ext.ldr_scores`: probabilities get a warning, one column an error.
    """
    network = unwrapped(model)
    forward = forward_of(network, None)
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    loss = torch.zeros((), dtype=torch.float64, device=x.device)
    with borrowed(network, x.device), torch.no_grad():
        for start in range(0, len(y), _EVALUATION_BATCH):
            part, labels = (tensor[start : start + _EVALUATION_BATCH] for tensor in (x, y))
            logits = forward(part)
            if start == 0:
                warn_of_probabilities(network, logits)
            correct += (logits.argmax(dim=1) == labels).sum()
            loss += functional.cross_entropy(logits.double(), labels, reduction="sum")
    return correct.item() / len(y), loss.item() / len(y)


def _batches(
    total: int, size: int, device: torch.device, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Endless batches of exactly ``size`` positions, from one random permutation after another.

    The permutations are drawn on the CPU, so that they do not depend on the device, from
    `generator` (by default torch's global one).
    """
    left = torch.empty(0, dtype=torch.int64, device=device)
    while True:
        while len(left) < size:
            order = torch.randperm(total, generator=generator, device="cpu")
            left = torch.cat([left, to_device(order, device)])
        yield left[:size]
        left = left[size:]
