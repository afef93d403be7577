"""What `vaal-ext score` does once its options are read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vaal_ext.checks import require_positive
from vaal_ext.cli.work.torchrun import launched, launched_group, local_rank, rank
from vaal_ext.experiment.datasets.folder import ImageFolderPool
from vaal_ext.experiment.datasets.load import load_pool
from vaal_ext.experiment.defaults import settings_for
from vaal_ext.files.atomic import require_writable
from vaal_ext.network.device import device_named
from vaal_ext.network.pixels import PixelScale
from vaal_ext.network.user_model import load_model
from vaal_ext.pool.batches import first_samples, pool_size
from vaal_ext.pool.manifest import begun_manifest, read_manifest
from vaal_ext.pool.radius import lengths_for
from vaal_ext.pool.scores import PoolScores
from vaal_ext.pool.shards import each_shard
from vaal_ext.progress import announced
from vaal_ext.scorer import LDRScorer
from vaal_ext.selection import require_percentile

__all__ = ["kept", "score"]


def score(
    model: str,
    weights: Path,
    data: str,
    out: Path,
    *,
    data_root: Path | None,
    split: str,
    xi: float | None,
    eps: float | Literal["auto"] | None,
    num_iters: int | None,
    method: str | None,
    sign: str,
    seed: int,
    batch_size: int | Literal["auto"],
    workers: int,
    mean: list[float] | None,
    std: list[float] | None,
    device: str | None,
    amp: str | None,
    compile_model: bool,
    backend: str,
    on_nonfinite: str,
    on_unreadable: str,
    above: float | None,
    shard_size: int | None,
    progress: bool,
) -> str:
    """Score every sample of a pool and write the scores; a line that says how it went.

    To an .npz file, or else to a folder of shards. Under torchrun the processes do it together: the
    file by way of a process group, the folder without. Everything that can be wrong with the
    arguments is found before the work starts, the folder of `out` included. With `progress` stderr
    is told then what will be done. Images that cannot be read, and are left out with
    ``on_unreadable="skip"``, have a line each at the end.

    `method`, `num_iters`, `eps` and `xi` that are None are those of the folder if it is begun. Else
    the method is "direct"; the lengths are those of a named data set's settings, or measured on the
    pool, as with `eps` "auto", and a tenth of eps.

    With `above` the pool is screened: see :meth:`vaal_ext.LDRScorer.score`.

    Raises:
        TypeError, ValueError, OSError: what is wrong, in a line.
    """
    sharded = out.suffix != ".npz"
    if not sharded:
        require_writable(out)
        if shard_size is not None:
            raise ValueError(f"shard-size is for a folder of shards, and {out} is a file")
    if above is not None:
        require_percentile("above", above)
        if sharded:
            raise ValueError(
                "above is for an .npz file: which samples rank above a percentile is a matter of "
                f"the whole pool, and {out} would be a folder of shards, each scored by itself. "
                "Leave --above out, or name a file that ends in .npz"
            )
    pool = load_pool(data, data_root, split, on_unreadable=on_unreadable)
    place = _device(device)
    network, done = load_model(model, weights)
    network = network.to(place)
    sample = first_samples(pool, 1).to(place)
    if len(sample) == 0:
        raise ValueError(f"none of the {len(pool)} images of {data} can be read")
    normalize = None
    if sample.dtype == torch.uint8 or mean is not None or std is not None:
        normalize = (0.0 if mean is None else mean, 1.0 if std is None else std)
    manifest = begun_manifest(out) if sharded else None
    begun = {} if manifest is None else manifest.identity
    method, num_iters = _search(method, num_iters, xi, begun)
    eps, xi, measured = _lengths(data, pool, normalize, method, xi, eps, begun)
    scorer = LDRScorer(
        network,
        xi=xi,
        eps=eps,
        num_iters=num_iters,
        method=method,
        sign=sign,
        seed=seed,
        backend=backend,
        device=place,
        amp=amp,
        batch_size=batch_size,
        num_workers=workers,
        normalize=normalize,
        compile_model=compile_model,
        on_nonfinite=on_nonfinite,
    )
    if normalize is not None:
        pixels = PixelScale(normalize)
        pixels.check(sample)
        sample = pixels.input(sample)
    _try(network, sample, model)
    progress = progress and rank() == 0
    radius = f"eps {eps:g}" + (" (a fiftieth of the samples' length)" if measured else "")
    what = f"scoring {pool_size(pool)} samples of {data} to {out}, {radius}"
    what += ("" if xi is None else f", xi {xi:g}") + (f"; {weights}: {done}" if done else "")
    what += "" if above is None else f"; LDR where it can rank above {above:g} %"
    if manifest is not None:
        left = len(manifest.folder.missing())
        what += f"; {left} shards are still to be done" if left else "; all shards are there"
    trials = "; some trials of what is auto come first" if "auto" in (batch_size, amp) else ""
    compiled = "; the first batch waits for torch.compile" if compile_model else ""
    started = time.perf_counter()
    with announced(what + trials + compiled):
        if sharded:
            count = scorer.score_shards(pool, out, shard_size=shard_size, progress=progress)
            left = len(read_manifest(out).folder.missing())
            note = f"; {left} shards of the pool are still to be done" if left else "; complete"
        else:
            with launched_group():
                scores = scorer.score(pool, above=above, progress=progress)
            count, note = scores.num_samples, ""
    seconds = time.perf_counter() - started
    # Of several processes at shards whoever did the last, which need not be the first process.
    lists = not left and (count > 0 or rank() == 0) if sharded else rank() == 0
    unreadable = []
    if on_unreadable == "skip" and lists:
        unreadable = _unreadable(pool, each_shard(out) if sharded else [scores])
    if not sharded:
        if rank() > 0:
            return f"rank {rank()}: scored its part of {out}"
        scores.save(out)
        left_out = int(np.isnan(scores.ldr).sum()) - len(unreadable)
        note = f"; {left_out} could not be scored" if left_out > 0 else ""
    if unreadable:
        note += f"; {len(unreadable)} images could not be read:"
        note += "".join(f"\n{line}" for line in unreadable)
    if sharded and count == 0:
        return f"{out}: nothing was left to score here" + note
    step = method if xi is None else f"{method}, xi {xi:g}"
    steps = "" if num_iters is None else f", {num_iters} iterations"
    return (
        f"{out}: {count} samples scored in {seconds:.1f} s "
        f"({count / seconds:.0f} samples/s on {place}, {step}, eps {eps:g}{steps})"
        + (f"; {scorer.chosen.report}" if scorer.chosen and scorer.chosen.report else "")
        + note
    )


def kept(out: Path) -> str:
    """What an interrupted :func:`score` has written to `out`, the file or the folder of shards."""
    if out.suffix == ".npz":
        return (
            f"nothing was written to {out} (with a folder as --out, a name without .npz, what is "
            "done is kept, shard by shard)"
        )
    try:
        left = len(read_manifest(out).folder.missing())
    except (OSError, ValueError):  # the manifest comes first, and is not there yet
        return f"no shard was written to {out} yet"
    done = len(list(out.glob("shard_*.npz")))
    return f"{done} of {done + left} shards are kept in {out}"


def _unreadable(pool: Any, parts: Iterable[PoolScores]) -> list[str]:
    """A line for each image of a pool that could not be read; `parts` are its scores in order."""
    lines: list[str] = []
    start = 0
    for scores in parts if isinstance(pool, ImageFolderPool) else ():
        lines += pool.unreadable(start + np.flatnonzero(scores.pseudo_label < 0))
        start += scores.num_samples
    return lines


def _search(
    method: str | None, num_iters: int | None, xi: float | None, begun: Mapping[str, Any]
) -> tuple[str, int | None]:
    """Method and number of steps: as given, else those of the scores that are to go on."""
    if method is None and xi is not None and not begun:
        raise ValueError(
            "xi is the step of the paper's search: give --method finite-difference with it, or "
            "leave --xi out"
        )
    known = begun.get("method", "direct")
    if num_iters is None and method in (None, known):
        num_iters = begun.get("num_iters")
    return method or known, num_iters


def _lengths(
    data: str,
    pool: Any,
    normalize: Any,
    method: str,
    xi: float | None,
    eps: float | Literal["auto"] | None,
    begun: Mapping[str, Any],
) -> tuple[float, float | None, bool]:
    """eps, xi (None where the method has no such step), and whether eps was measured on the pool.

    `begun` is the identity of the scores that are to go on, or empty.
    """
    own = data.startswith(("npz:", "npy:", "folder:"))
    measured = "eps" not in begun and (eps == "auto" or (eps is None and own))
    radius = None if eps == "auto" else eps
    if radius is None and not measured:
        radius = begun["eps"] if "eps" in begun else settings_for(data).eps
    if radius is not None:
        require_positive("eps", radius)
    if xi is None and method == "finite-difference":
        xi = begun.get("xi")
        if xi is None and not (own or measured):
            xi = settings_for(data).xi
    try:
        radius, step = lengths_for(pool, radius, xi, normalize=normalize)
    except ValueError as error:
        raise ValueError(f"{data}: eps cannot be measured, {error}. Give --eps NUMBER") from error
    return radius, step if method == "finite-difference" else xi, measured


def _device(name: str | None) -> torch.device:
    device = device_named(name)
    if device == torch.device("cuda") and launched():
        return device_named(f"cuda:{local_rank()}")
    return device


def _try(network: nn.Module, sample: Tensor, name: str) -> None:
    """One sample through the network, so that a wrong shape is found in a clear sentence."""
    network.eval()
    try:
        with torch.no_grad():
            network(sample)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"{name} does not take samples of shape {list(sample.shape[1:])}: "
            f"{type(error).__name__}: {error}"
        ) from error
