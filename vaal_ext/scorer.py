"""A network's LDR scores of a whole pool. (The scores that need no LDR are made in ``pool``.)"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vaal_ext.network.inner_point import Encode
from vaal_ext.network.logits import LogitsFn
from vaal_ext.network.state import Model
from vaal_ext.perturbation.ldr import LDR, warn_of_zeros
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool.baselines import deepfool_scores, posterior_scores
from vaal_ext.pool.batches import has_parts, pool_size
from vaal_ext.pool.plan import Plan
from vaal_ext.pool.processes import group_size, score_together
from vaal_ext.pool.run import Piece, PoolRun
from vaal_ext.pool.scores import PoolScores
from vaal_ext.pool.screen import screen_pays
from vaal_ext.pool.screened import Alone, Screened, require_screen, screened
from vaal_ext.pool.shards import score_shards

__all__ = ["LDRScorer", "deepfool_scores", "posterior_scores"]


class LDRScorer:
    """Scores a whole pool: :func:`ldr_scores` in batches, with the posterior's summary besides.

    Args:
        model, eps, method, num_iters, xi, divergence, smoothing, seed, backend, logits_fn, sign:
            see :func:`ldr_scores`.
        encode: for perturbation at an inner point of the network, and for samples that are no
            floating tensors. Of a batch x from the pool, on the device, it gives the point that is
            perturbed, floating [B, ...], or a tuple that begins with it: (point, mask, ...), each a
            tensor [B, ...]. The model is then called with what encode gave. Where the mask (bool,
            over the point's leading dimensions; or None) is False nothing is perturbed, and that
            part counts in no norm: padding, say. xi and eps are lengths at that point. encode is
            called once a batch, without gradient and not under `amp`. An nn.Module, or a method of
            one, is lent and given back as the model is. E.g. for the features of a CNN:
            LDRScorer(net.head, encode=net.features, ...); for a transformer see
            :mod:`vaal_ext.integrations.transformers`.
        device: where the batches go; by default where the model's first parameter lies, else where
            the pool lies (a Dataset or an array: the CPU). The model itself is never moved.
        amp: None, or "bf16" or "fp16" to run the network under torch.autocast. "auto" tries float32
            and bfloat16, each also with inputs in channels_last, on the pool's first 256 samples,
            and takes the fastest whose LDR ranks them as float32 does (Spearman's correlation at
            least 0.999). At small xi bfloat16 does not: its logits do not resolve the step. The
            trial costs as much as some 1500 samples.
        batch_size: samples at a time from anything but a DataLoader, which has its own. "auto"
            tries doubling sizes on the first samples. With another size the network's products
            round otherwise, and scores change by some 1e-6 of themselves; but with sign="paper"
            this turns r round for some 3 samples in a thousand (see `sign` of :func:`ldr_scores`).
        memory_limit: bytes that a batch of the size "auto" may take, by default half of what is
            available.
        num_workers: processes that read a Dataset (a DataLoader has its own). Each holds up to two
            batches besides those in work.
        normalize: (mean, std), each a number or one number per channel, for pools of uint8 images
            [N, Ch, ...]: the network's input is (x / 255 - mean) / std, made on the device, so that
            images cross to it as bytes. xi and eps stay in the units of the network's input.
        compile_model: run the network through torch.compile. It is compiled when the first batch
            comes, and again for its gradient and for other shapes.
        cuda_graph: on a CUDA device, capture the whole power iteration of a batch as a CUDA graph
            and replay it. "auto" goes on without one, and says so, where the model cannot be
            captured (because it waits for the device, say); True raises a RuntimeError there, and a
            ValueError on another device or on several; False never captures. Every call of `score`
            captures anew; the model's Python code does not run in a replay.
        on_nonfinite: "raise" a ValueError that names the first sample whose logits are not finite,
            or "skip": its ldr, entropy and margin are NaN, its pseudo label is -1, it has no part
            in posterior_mean, and selection leaves it out.
        look: False scores without the trial and the warnings that the next paragraph describes, for
            the later queries of a loop, where they would only repeat those of the first.

    Before its first pool is scored the scorer tries the network on at most 64 samples (those of the
    first batch), and warns where it gives probabilities, is random in eval mode, lets a sample's
    logits depend on its neighbours, or computes in half precision with finite differences; and
    where another random start would rank samples otherwise, so that a query is luck. That is tested
    on 64 samples spread over the pool, which are read once more for it (or, where they cannot be,
    on the first ones). It costs three forwards of 64 samples and scoring as many twice, and changes
    neither scores nor random states. For every pool it warns if images look like unscaled bytes. In
    a group of processes, or with shards, one process does all this; with shards it is the one that
    takes the first missing shard.

    The network's products round as torch's own settings say. Where those allow TF32, as they do by
    default in convolutions on CUDA, a float32 network's logits are off by about 2^-11 of their
    size, and an LDR made of smaller differences than that is noise.

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of its range.
    """

    def __init__(
        self,
        model: Model,
        *,
        eps: float,
        method: str = "direct",
        num_iters: int | None = None,
        xi: float | None = None,
        divergence: str = "symmetric",
        smoothing: float = 0.0,
        seed: int = 0,
        backend: str = "fused",
        logits_fn: LogitsFn | None = None,
        encode: Encode | None = None,
        device: torch.device | str | None = None,
        amp: str | None = None,
        batch_size: int | Literal["auto"] = 256,
        memory_limit: int | None = None,
        num_workers: int = 0,
        normalize: tuple[Any, Any] | None = None,
        compile_model: bool = False,
        cuda_graph: bool | str = "auto",
        on_nonfinite: str = "raise",
        sign: str = "paper",
        look: bool = True,
    ) -> None:
        search = SearchSettings(
            eps=eps,
            method=method,
            num_iters=num_iters,
            xi=xi,
            divergence=divergence,
            smoothing=smoothing,
            backend=backend,
            sign=sign,
        )
        self._measure = LDR(search, seed)
        self._run = PoolRun(
            model,
            self._measure,
            logits_fn=logits_fn,
            encode=encode,
            device=device,
            amp=amp,
            batch_size=batch_size,
            memory_limit=memory_limit,
            num_workers=num_workers,
            normalize=normalize,
            compile_model=compile_model,
            cuda_graph=cuda_graph,
            on_nonfinite=on_nonfinite,
            backend=backend,
            look=look,
        )
        self._plan: Plan | None = None

    def __repr__(self) -> str:
        model, settings = self._run.model, self._measure.settings.items()
        name = getattr(model, "__name__", type(model).__name__)
        shown = [f"{key}={value!r}" for key, value in settings if value is not None]
        return f"LDRScorer({', '.join([name, *shown])})"

    @property
    def method(self) -> str:
        """How r is found, see :func:`vaal_ext.ldr_scores`."""
        return self._measure.search.method

    @property
    def chosen(self) -> Plan | None:
        """How the last pool was scored: batch size, number format, and what the trials of "auto"
        found. None before the first pool."""
        return self._plan

    def score(
        self,
        pool: Any,
        *,
        above: float | None = None,
        miss: float = 0.01,
        sample_index: Tensor | None = None,
        progress: bool = True,
        group: Any = None,
    ) -> PoolScores:
        """Scores every sample of the pool, in memory for four batches and 64 bytes a sample.

        With `above` only the samples that rank above that percentile get an LDR, which is all that
        a query needs, and it is computed for few others. A clean forward gives, beside the summary
        of each posterior, the largest eigenvalue λ of diag(p) - ppᵀ, to which LDR is nearly
        proportional while eps is small. An audit, drawn at random from the whole pool, is scored
        first. The others are scored in falling order of λ, in steps, until the largest LDR/λ so
        far, times the λ of the next one, no longer reaches the threshold, and no candidate of the
        audit has a λ as small as what is left. The audit is so large that, were more than `miss` of
        the candidates left out, it would hold one of them in 95 of 100 pools. Where it tells that
        too many others would have to be scored, or where two thirds of them are, all samples are
        scored, and a warning says so. A small pool, most of which would be scored anyway, is scored
        whole at once, and so is one from a DataLoader whose sampler leaves samples out.

        With `above` the pool is read once, and a second time where it is scored, and takes memory
        for 80 bytes a sample instead of 64. Only the clean forward of scored samples outside the
        audit is run twice, the second time for the gradient. The score of a sample does not depend
        on `above`, to rounding. Seed and pool fix the audit, whatever the batch size and however
        many processes. (A sample whose logits are finite at x and not at x + r may have a part in
        posterior_mean here.)

        When a batch does not fit into the GPU's memory it is halved, with a warning, and the rest
        of the pool goes on in pieces of that size.

        Where torch.distributed is initialised all processes of `group` call this, with the same
        pool and the same network. Each scores a part, and all get the whole, which is to rounding
        what one process gives, from the same start directions. A process waits for the others as
        long as the group's timeout. Over NCCL set the current device before; there a process that
        dies ends the others by NCCL's watchdog, not by a RankFailedError. A group of gloo's, as of
        torch.distributed.new_group(backend="gloo"), asks for neither.

        Args:
            pool: a tensor or an array [N, ...], a map-style Dataset of x or (x, y, ...), or a
                DataLoader of one, shuffled or not: the scores come in the order of the dataset and
                do not depend on the loader's. What its sampler leaves out is left out of the
                scores too. A pool larger than memory is an array that numpy.load(path,
                mmap_mode="r") maps, several of them in a torch.utils.data.ConcatDataset, or a
                Dataset that reads its files. It may give None for a sample (a file that cannot be
                read, say): its ldr, entropy and margin are NaN, its pseudo label is -1.
            above: a percentile, 0 <= above < 100: that of the query or a lower one. The ldr of
                samples that do not rank above it is -inf, and :func:`vaal_ext.select` refuses a
                percentile, or a number of samples, for which it would be needed. None: LDR for all.
            miss: the share of the samples above the percentile that may be missed.
            sample_index: int64 [N], the identity of each sample of the tensor or dataset, by
                default arange(N). Give it when the pool is a part of a larger set, so that a
                sample keeps its start direction (and its score) from pool to pool.
            progress: show a bar with the samples per second, and before it what the network gets:
                shape, dtype, range, mean and deviation of the first samples.
            group: a torch.distributed process group, by default all processes where one is
                initialised. With a group of this process alone the others need not take part.

        Raises:
            TypeError, ValueError: see :func:`ldr_scores`, and `on_nonfinite`; a percentile that is
                none, or one with smoothing; a pool of another kind, a loader whose order cannot be
                followed, or a sampler that repeats samples (or leaves some out, where there are
                several processes); processes that differ in pool, network or settings.
            RankFailedError: (a ConnectionError) another process of the group failed or died.
        """
        run, screen, search = self._run, None, self._measure.search
        if above is not None:
            require_screen(search, above, miss)
            if has_parts(pool) and screen_pays(pool_size(pool), above, miss, search):
                screen = float(above), float(miss)
        if group_size(group) > 1:
            found, plan = score_together(run, pool, sample_index, progress, group, screen)
        else:
            index = run.index(pool, sample_index)
            plan, size = run.plan(pool, index), len(index)
            if screen is None:
                whole = [Piece(range(size), look=True)]
                (part,) = run.parts(plan, pool, index, whole, size, progress)
                found = Screened(part.scores, part.failed, part.scores.num_samples)
            else:
                found = screened(run, plan, pool, index, progress, *screen, Alone())
        self._plan = replace(plan, report="; ".join(filter(None, (plan.report, found.report))))
        zeros = int((found.scores.ldr == 0).sum())
        warn_of_zeros(zeros, found.flat, found.scored, search)
        return found.scores

    def score_shards(
        self,
        pool: Any,
        folder: str | os.PathLike[str],
        *,
        sample_index: Tensor | None = None,
        shard_size: int | None = None,
        progress: bool = True,
    ) -> int:
        """Scores a pool in shards, files of a folder; after a kill the same call goes on from them.

        Only shards that are missing are scored. Processes that call this at the same time, on one
        machine or on several that share the folder, divide the shards among them, without
        torch.distributed. :func:`vaal_ext.read_shards` gives the scores when all are there.

        Args:
            pool, sample_index, progress: see :meth:`score`.
            folder: a new one (it is made), or one that this has begun with the same network, pool
                and settings. Batch size, workers, device and `compile_model` may be others.
            shard_size: samples in a shard, 28 bytes each and 4 for every letter of the longest
                name among them. After a kill at most that many are scored again. By default that of
                the folder, 131,072 in a new one.

        Returns:
            how many samples were scored here.

        Raises:
            TypeError, ValueError: see :meth:`score`; a folder of other scores, or of other files.
            OSError: the folder cannot be made or written.
        """
        path = Path(folder)
        count, flat, self._plan = score_shards(
            self._run, pool, sample_index, path, shard_size, progress
        )
        warn_of_zeros(flat, flat, count, self._measure.search)
        return count
