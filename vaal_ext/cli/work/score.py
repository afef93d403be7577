"""What `vaal-ext score` does once its options are read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
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
from vaal_ext.experiment.status import counted
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

__all__ = ["Network", "Search", "Source", "Target", "kept", "score"]


@dataclass(frozen=True)
class Network:
    """The network as the options name it: "package.module:factory", its weights, its device."""

    factory: str
    weights: Path
    device: str | None


@dataclass(frozen=True)
class Source:
    """The pool as the options name it, and how its images become the network's input."""

    data: str
    root: Path | None
    split: str
    on_unreadable: str
    mean: list[float] | None
    std: list[float] | None

    def normalize(self, sample: Tensor) -> tuple[Any, Any] | None:
        """See :class:`~vaal_ext.scorer.LDRScorer`; None where the samples are not scaled."""
        if sample.dtype != torch.uint8 and self.mean is None and self.std is None:
            return None
        return 0.0 if self.mean is None else self.mean, 1.0 if self.std is None else self.std


@dataclass(frozen=True)
class Target:
    """Where the scores go: an .npz file, or else a folder of shards; and which are wanted."""

    out: Path
    above: float | None
    shard_size: int | None

    @property
    def sharded(self) -> bool:
        """Whether it is a folder of shards."""
        return self.out.suffix != ".npz"

    def require_fit(self) -> None:
        """ValueError where the options do not go together, OSError where no file can be made."""
        if not self.sharded:
            require_writable(self.out)
            if self.shard_size is not None:
                raise ValueError(f"shard-size is for a folder of shards, and {self.out} is a file")
        if self.above is not None:
            require_percentile("above", self.above)
            if self.sharded:
                raise ValueError(
                    "above is for an .npz file: which samples rank above a percentile is a matter "
                    f"of the whole pool, and {self.out} would be a folder of shards, each scored "
                    "by itself. Leave --above out, or name a file that ends in .npz"
                )


@dataclass(frozen=True)
class Search:
    """The options of the search, see :class:`~vaal_ext.scorer.LDRScorer`; None: left open."""

    method: str | None
    num_iters: int | None
    xi: float | None
    eps: float | Literal["auto"] | None


def score(network: Network, source: Source, target: Target, search: Search, **how: Any) -> str:
    """Score every sample of a pool and write the scores; a line that says how it went.

    Under torchrun the processes do it together: a file by way of a process group, a folder of
    shards without. Everything that can be wrong with the options is found before the work starts,
    and stderr is told then what will be done. Images that cannot be read, and are left out with
    ``on_unreadable="skip"``, have a line each at the end.

    What `search` leaves open is taken from the folder if it is begun. Else the method is "direct",
    eps and xi are those of a named data set's settings, and on other data (or with `eps` "auto")
    eps is measured on the pool and xi a tenth of it.

    Args:
        how: further keywords of :class:`~vaal_ext.scorer.LDRScorer`.

    Raises:
        TypeError, ValueError, OSError: what is wrong, in a line.
    """
    target.require_fit()
    out, sharded = target.out, target.sharded
    pool = load_pool(source.data, source.root, source.split, on_unreadable=source.on_unreadable)
    device = _device(network.device)
    module, loaded = load_model(network.factory, network.weights)
    module = module.to(device)
    sample = first_samples(pool, 1).to(device)
    if len(sample) == 0:
        raise ValueError(f"none of the {len(pool)} images of {source.data} can be read")
    normalize = source.normalize(sample)
    manifest = begun_manifest(out) if sharded else None
    begun = {} if manifest is None else manifest.identity
    search, measured = _filled(search, source.data, pool, normalize, begun)
    scorer = LDRScorer(module, **asdict(search), device=device, normalize=normalize, **how)
    if normalize is not None:
        pixels = PixelScale(normalize)
        pixels.check(sample)
        sample = pixels.input(sample)
    _try(module, sample, network.factory)
    what = f"scoring {pool_size(pool)} samples of {source.data} to {out}, eps {search.eps:g}"
    what += " (a fiftieth of the samples' length)" if measured else ""
    what += "" if search.xi is None else f", xi {search.xi:g}"
    what += f"; {network.weights}: {loaded}" if loaded else ""
    what += "" if target.above is None else f"; LDR where it can rank above {target.above:g} %"
    if manifest is not None:
        left = len(manifest.folder.missing())
        what += f"; {left} shards are still to be done" if left else "; all shards are there"
    tried = "auto" in (how.get("batch_size"), how.get("amp"))
    what += "; some trials of what is auto come first" if tried else ""
    what += "; the first batch waits for torch.compile" if how.get("compile_model") else ""
    progress = rank() == 0
    started = time.perf_counter()
    with announced(what):
        if sharded:
            count = scorer.score_shards(pool, out, shard_size=target.shard_size, progress=progress)
        else:
            with launched_group():
                scores = scorer.score(pool, above=target.above, progress=progress)
    seconds = time.perf_counter() - started
    if not sharded:
        if rank() > 0:
            return f"rank {rank()}: scored its part of {out}"
        unreadable = _unreadable(pool, source, [scores])
        count = scores.num_samples - len(unreadable)
        scores.save(out)
        left_out = int(np.isnan(scores.ldr).sum()) - len(unreadable)
        note = f"; {left_out} could not be scored" if left_out > 0 else ""
    else:
        left = len(read_manifest(out).folder.missing())
        note = f"; {left} shards of the pool are still to be done" if left else "; complete"
        # Of several processes whoever did the last shard tells, which need not be the first one.
        tells = not left and (count > 0 or rank() == 0)
        unreadable = _unreadable(pool, source, each_shard(out)) if tells else []
    if unreadable:
        note += f"; {counted(len(unreadable), 'image')} could not be read:"
        note += "".join(f"\n{line}" for line in unreadable)
    if sharded and count == 0:
        return f"{out}: nothing was left to score here" + note
    step = "" if search.xi is None else f", xi {search.xi:g}"
    steps = f", {search.num_iters} iterations" if search.num_iters else ""
    return (
        f"{out}: {count} samples scored in {seconds:.1f} s ({count / seconds:.0f} samples/s "
        f"on {device}, {search.method}{step}, eps {search.eps:g}{steps})"
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


def _unreadable(pool: Any, source: Source, parts: Iterable[PoolScores]) -> list[str]:
    """A line for each image of a pool that was left out; `parts` are its scores in order."""
    if source.on_unreadable != "skip" or not isinstance(pool, ImageFolderPool):
        return []
    lines: list[str] = []
    start = 0
    for scores in parts:
        lines += pool.unreadable(start + np.flatnonzero(scores.pseudo_label < 0))
        start += scores.num_samples
    return lines


def _filled(
    given: Search, data: str, pool: Any, normalize: Any, begun: Mapping[str, Any]
) -> tuple[Search, bool]:
    """The search with nothing left open (but xi, where the method has no such step), and whether
    eps was measured on the pool.

    `begun` is the identity of the scores that are to go on, or empty.
    """
    xi, eps, num_iters = given.xi, given.eps, given.num_iters
    if given.method is None and xi is not None and not begun:
        raise ValueError(
            "xi is the step of the paper's search: give --method finite-difference with it, or "
            "leave --xi out"
        )
    known = begun.get("method", "direct")
    method = given.method or known
    if num_iters is None and method == known:
        num_iters = begun.get("num_iters")
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
    if method == "finite-difference":
        xi = step
    return Search(method, num_iters, xi, radius), measured


def _device(name: str | None) -> torch.device:
    device = device_named(name)
    if device.type == "cuda" and launched():
        if device.index is None:
            device = device_named(f"cuda:{local_rank()}")
        # What the network's own code makes on "cuda" is to lie there too.
        torch.cuda.set_device(device)
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
