"""Local Distributional Roughness (LDR) of a batch and of a whole pool."""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from vaal_ext.backend import load_backend
from vaal_ext.checks import refuse_transforms
from vaal_ext.forward import LogitsFn, check_input, forward_of, warn_of_probabilities
from vaal_ext.model_state import Model, borrowed, unwrapped
from vaal_ext.pool.batches import has_parts, pool_size
from vaal_ext.pool.distributed import group_size, score_together
from vaal_ext.pool.execution import Execution
from vaal_ext.pool.inner_point import Encode
from vaal_ext.pool.scores import PoolScores
from vaal_ext.pool.scoring import PoolRun, index_array
from vaal_ext.pool.screen import screen_pays
from vaal_ext.pool.screened import Alone, require_screen, screened
from vaal_ext.pool.shards import score_shards
from vaal_ext.power_iteration import PowerIteration

__all__ = ["LDRScorer", "ldr_scores"]


def ldr_scores(
    model: Model,
    x: Tensor,
    *,
    eps: float,
    method: str = "direct",
    num_iters: int | None = None,
    xi: float | None = None,
    divergence: str = "symmetric",
    smoothing: float = 0.0,
    seed: int = 0,
    sample_index: Tensor | None = None,
    backend: str = "fused",
    logits_fn: LogitsFn | None = None,
    sign: str = "paper",
) -> Tensor:
    """Local Distributional Roughness of one batch (Eq. 4 of the paper, with r of Eq. 1).

    LDR(x) = J(f(x), f(x + r)), where r of length `eps` is the perturbation that changes the
    posterior most. J is the symmetric KL of the two softmax distributions, or, with
    `divergence="forward"`, the KL(p||q) of Eq. 1. By `method` r is

    * "direct": r = eps·unit(Jᵀw), J the Jacobian of the logits at x and w the eigenvector of F =
      diag(p) - ppᵀ of its largest eigenvalue, turned away from the pseudo label. F is the Hessian
      of the KL by the logits, so w is the change of the logits that changes the posterior most, and
      Jᵀw the shortest way there. One gradient, no random start. Each of `num_iters` more steps sets
      r to eps along the gradient of J at x + r: wanted at long eps, and by networks whose logits
      differ much in how fast they change (untrained ones), where five steps of the next search are
      nearer to the largest J than the first one of this.
    * "finite-difference": the paper's power iteration (section III-A). From a random u, `num_iters`
      times, u is set to the unit gradient of J(f(x), f(x + xi u)); r = eps·u.
    * "fisher": the same with the exact product JᵀFJu, the Hessian of the KL at r = 0, in the place
      of a finite difference, so with no xi and no rounding of x + xi u. The network's gradient is
      differentiated once more: that goes with torch's own layers (scaled_dot_product_attention runs
      by its kernel SDPBackend.MATH), and not with a compiled model.

    `eps` is a length (2-norm per sample) in the units of the network's input: take the length of a
    change that should not alter the label (:func:`vaal_ext.small_radius` measures one). The paper
    has eps = 2, and the same xi.

    The model runs in eval mode without parameter gradients and is afterwards exactly as before
    (train/eval flags, requires_grad, .grad, buffers, random states), also after an exception. It
    may be called under torch.no_grad() and torch.inference_mode().

    Args:
        model: an nn.Module or any callable that gives logits [B, C] for x, C >= 2, differentiable
            in x, each sample's independent of the others; or an output whose `.logits` or
            ["logits"] these are. Of DistributedDataParallel and DataParallel the module within is
            run. A callable that is no nn.Module runs as it is: put the modules that it uses into
            eval mode yourself. A logit of -inf is a class ruled out.
        x: floating, [B, ...]; not modified.
        eps: finite and above 0.
        method: as above.
        num_iters: n >= 0 steps after the first with "direct", where n + 2 forwards and n + 1
            backwards are run; else n >= 1, the paper's Ip: n + 2 forwards and n backwards, with
            "fisher" 2 forwards and 2·n + 1 backwards. By default 0 with "direct", else 5.
        xi: finite and above 0, the step of method="finite-difference", which needs it, in the units
            of eps. x + xi u is rounded to the dtype of x: in float32 a step below about 1e-5 of the
            input's scale (a sample's 2-norm) is lost, whatever follows. 1e-3 to 1e-1 of that scale
            is safe.
        smoothing: share of the uniform distribution mixed into both posteriors, in [0, 1); 0 but
            with method="finite-difference".
        seed, sample_index: key the random start of each sample (there is none with "direct"), so
            that what the batch it is in changes of its score is what rounding changes (see `sign`).
            sample_index is int64 [B], by default arange(B).
        backend: "fused", or "reference" for plain PyTorch.
        logits_fn: takes the logits out of the model's output.
        sign: r and -r are alike to the Hessian, not to J: "paper" takes J at x + r, with the sign
            that the search led to, "max" the larger of J at x + r and x - r, "mean" their mean (one
            more forward). With "direct" the sign is that which takes from the pseudo label; on
            MNIST "max" finds no more. A random start nearly at right angles to the worst direction
            leaves the sign to rounding: of 2,000 MNIST images (the paper's CNN, 300 labels, xi
            0.01, eps 1, 8 iterations, logits off by up to 2 ulps at random, twice) 5 and 6 came out
            at the other side, where J is another by a factor of 440 at the median; with "max" none
            moved by more than 20 %.

    Returns:
        [B] on the device of the logits, float64 where they are, else float32; in nats, >= 0. It
        is 0 where a gradient was 0 (a flat place, or a step lost in rounding), NaN where logits
        were not finite.

    Raises:
        TypeError: x, sample_index or the logits of a wrong type or dtype.
        ValueError: a number out of range, wrong shapes, one logit a sample, logits that do not
            depend on x through autograd, a model with inference tensors.
        RuntimeError: called inside a transform of torch.func.

    Warns if the model gives probabilities instead of logits.
    """
    refuse_transforms("ldr_scores")
    settings = PowerIteration(
        eps, method, num_iters, xi, divergence, smoothing, seed, backend, sign
    )
    model = unwrapped(model)
    forward = forward_of(model, logits_fn)
    check_input(x)
    load_backend(backend)
    if sample_index is None:
        index = torch.arange(len(x))
    else:
        index = torch.from_numpy(index_array(sample_index, len(x)))
    if len(x) == 0:
        return x.new_zeros(0, dtype=torch.promote_types(x.dtype, torch.float32))
    with borrowed(model, x.device):
        found = settings.run(forward, x.detach(), index.to(x.device))
    warn_of_probabilities(model, found.logits)
    return found.ldr


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
            tries doubling sizes on the first samples. With the size the network's products round
            otherwise, and scores move by some 1e-6 of themselves; but with sign="paper" that may
            turn r round, for some 3 samples in a thousand (see `sign` of :func:`ldr_scores`).
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
            ValueError on another device; False never captures. Every call of `score` captures anew;
            the model's Python code does not run in a replay.
        on_nonfinite: "raise" a ValueError that names the first sample whose logits are not finite,
            or "skip": its ldr, entropy and margin are NaN, its pseudo label is -1, it has no part
            in posterior_mean, and selection leaves it out.
        look: False scores without the looks below: for the later queries of a loop, where the first
            one has told what they would.

    Before its first pool is scored the scorer tries the network on at most 64 samples (those of the
    first batch), and warns where it gives probabilities, is random in eval mode, lets a sample's
    logits depend on its neighbours, or computes in half precision with finite differences; and
    where another random start would rank samples otherwise, so that a query is luck. That is asked
    of 64 samples spread over the pool, which are read once more for it (or, where they cannot be,
    of the first ones). It costs three forwards of 64 samples and scoring as many twice; scores and
    random states are the same without. Of every pool it warns if images look like unscaled bytes.
    In a group of processes, or at shards, one process does all this: in every sitting the one that
    takes the first shard to be done.

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
        self._run = PoolRun(
            model,
            PowerIteration(eps, method, num_iters, xi, divergence, smoothing, seed, backend, sign),
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

    def __repr__(self) -> str:
        model, settings = self._run.model, asdict(cast(PowerIteration, self._run.probe))
        name = getattr(model, "__name__", type(model).__name__)
        shown = [f"{key}={value!r}" for key, value in settings.items() if value is not None]
        return f"LDRScorer({', '.join([name, *shown])})"

    @property
    def method(self) -> str:
        """How r is found, see :func:`ldr_scores`."""
        return cast(PowerIteration, self._run.probe).method

    @property
    def chosen(self) -> Execution | None:
        """How the last pool was scored: batch size, number format, and what the trials of "auto"
        found. None before the first pool."""
        return self._run.chosen

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
        """Scores every sample of the pool; memory for four batches and 64 bytes a sample.

        With `above` LDR is given only for the samples that rank above that percentile, which is all
        that a query needs, and is computed for few others. A clean forward gives, beside the
        summary of each posterior, the largest eigenvalue λ of diag(p) - ppᵀ, to which LDR is nearly
        proportional while eps is small. Samples are scored in falling order of λ, in steps, until
        the largest LDR/λ so far, times the λ of the next one, no longer reaches the threshold. So
        many more are drawn at random from the whole pool and scored in any case, that were more
        than `miss` of the candidates left out they would show one in 95 of 100 pools. If they do,
        or if two thirds of the pool were scored before that, all are scored, and a warning says so.
        A small pool, of which that would take most, is scored whole at once, and so is one from a
        DataLoader whose sampler leaves samples out.

        A pool is read twice at most, the second time only where it is scored, with memory for 80
        bytes a sample instead of 64. The clean forward of what is scored and was not drawn is run
        again, for its gradient; nothing else is. What a sample is scored as does not depend on
        `above`, to rounding. With seed and pool the samples drawn are fixed, whatever the batch
        size and however many processes. (A sample whose logits are finite at x and not at x + r may
        have a part in posterior_mean here.)

        Names of the samples (see :class:`vaal_ext.PoolScores`) take 4 bytes a letter of the longest
        of them besides, for each sample: NumPy gives every text of an array the same room.

        When a batch does not fit into the GPU's memory it is halved, with a warning, and the rest
        of the pool goes on in pieces of that size.

        Where torch.distributed is initialised all processes of `group` call this, with the same
        pool and the same network; each scores a part, and all get the whole: to rounding what one
        process gives, from the same start directions. The group's timeout is how long a process may
        wait for the others. With NCCL set the current device before.

        Args:
            pool: a tensor or an array [N, ...], a map-style Dataset of x or (x, y, ...), or a
                DataLoader of one, shuffled or not: the scores come in the order of the dataset and
                do not depend on the loader's. What its sampler leaves out is left out of the
                scores too. A pool larger than memory is an array that numpy.load(path,
                mmap_mode="r") maps, several of them in a torch.utils.data.ConcatDataset, or a
                Dataset that reads its files. Where its sample is None there is none (a file that
                cannot be read, say): ldr, entropy and margin are NaN, the pseudo label is -1.
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
                initialised. A group of this process alone scores here, whatever the others do.

        Raises:
            TypeError, ValueError: see :func:`ldr_scores`, and `on_nonfinite`; a percentile that is
                none, or one with smoothing; a pool of another kind, a loader whose order cannot be
                followed, or a sampler that repeats samples (or leaves some out, where there are
                several processes); processes that differ in pool, network or settings.
            RankFailedError: (a ConnectionError) another process of the group failed or died.
        """
        run, screen = self._run, None
        if above is not None:
            settings = cast(PowerIteration, run.probe)
            require_screen(settings, above, miss)
            if has_parts(pool) and screen_pays(pool_size(pool), above, miss, settings):
                screen = float(above), float(miss)
        if group_size(group) > 1:
            scores, flat, scored = score_together(run, pool, sample_index, progress, group, screen)
        elif screen is None:
            scores, flat = run.score(pool, sample_index, progress)
            scored = scores.num_samples
        else:
            run.choose(pool, run.index(pool, sample_index))
            run.looks.expect()
            scores, flat, scored = screened(run, pool, sample_index, progress, *screen, Alone())
        _warn_of_flat(flat, scored)
        return scores

    def score_shards(
        self,
        pool: Any,
        folder: str | os.PathLike[str],
        *,
        sample_index: Tensor | None = None,
        shard_size: int | None = None,
        progress: bool = True,
    ) -> int:
        """Scores a pool in shards, files of a folder: after a kill the same call goes on.

        Only what is not there is scored, and processes that call this at the same time (of one
        machine, or with a folder that several share) divide the shards among them, with no
        torch.distributed. :func:`vaal_ext.read_shards` gives the scores when all are there.

        Args:
            pool, sample_index, progress: see :meth:`score`.
            folder: a new one (it is made), or one that this has begun with the same network, pool
                and settings. Batch size, workers, device and `compile_model` may be others.
            shard_size: samples in a shard, 28 bytes each and 4 for every letter of the longest
                name among them; at most so many are scored again. By default that of the folder,
                131,072 in a new one.

        Returns:
            how many samples were scored here.

        Raises:
            TypeError, ValueError: see :meth:`score`; a folder of other scores, or of other files.
            OSError: the folder cannot be made or written.
        """
        path = Path(folder)
        count, flat = score_shards(self._run, pool, sample_index, path, shard_size, progress)
        _warn_of_flat(flat, count)
        return count


def _warn_of_flat(flat: int, count: int) -> None:
    if flat:
        warnings.warn(
            f"LDR is 0 for {flat} of {count} samples because a gradient was exactly 0 there: the "
            "network is flat around them, or a step xi was so small that x + xi*u rounds to x",
            RuntimeWarning,
            stacklevel=3,
        )
