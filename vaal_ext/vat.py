"""Virtual adversarial training (VAT): local distributional roughness as a term of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from vaal_ext.backend import load_backend
from vaal_ext.checks import (
    refuse_transforms,
    require_int,
    require_number,
    require_positive,
    require_sample_index,
)
from vaal_ext.network.logits import LogitsFn, check_input, forward_of, warn_of_probabilities
from vaal_ext.network.state import Model, with_copied_buffers
from vaal_ext.perturbation.gradient import recorded
from vaal_ext.perturbation.ldr import divergence_at, find
from vaal_ext.perturbation.search import SearchSettings, Starts

__all__ = ["VatSettings", "VatTerm", "vat_loss"]


def vat_loss(
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
    entropy_weight: float = 0.0,
    backend: str = "fused",
    logits_fn: LogitsFn | None = None,
    sign: str = "paper",
) -> Tensor:
    """Mean roughness of a batch, to be minimised: -1/N times the sum of LDS in the paper's Eq. 3.

    mean J(f(x), f(x + r)) + entropy_weight · mean H(p), where r of length `eps` is found as in
    :func:`vaal_ext.ldr_scores` (Eq. 1) and taken as a constant, p = softmax(f(x)) and H its entropy
    (section III). Differentiable in the parameters, not in x. The parameters act through both
    posteriors, as in Eq. 1 and 2, where the same θ stands on both sides: the gradient is that of
    the number returned, and the symmetric J has no side that could be the target. (Published VAT
    code takes KL(p‖q) instead and holds p fixed.)

    The model runs in the mode it is in, num_iters + 2 times (with method="fisher" 3 times). In
    training mode batch norm normalises each pass by that pass's own statistics (a sample's r then
    serves the whole batch a little; all samples count alike in it), and every pass draws its own
    dropout mask from torch's global generator, so that J also measures the masks. Buffers (the
    running statistics) stay as they are, bit for bit: every pass has copies of its own, and what it
    registers is gone after it. No pass touches `.grad`; those that search r record no gradient of
    the parameters. Nothing waits for the device, so a step with this loss can be captured as a CUDA
    graph; with method="finite-difference" torch.compile(fullgraph=True) traces it.

    Args:
        model: an nn.Module or any callable that gives logits [B, C] for x. Of a callable that is no
            nn.Module the buffers are not protected.
        x: floating, [B, ...], B >= 1, labelled and unlabelled samples alike; not modified.
        eps, xi: lengths per sample in units of the network's input; see
            :func:`vaal_ext.ldr_scores` for the step xi that rounding allows.
        method, divergence, smoothing, backend, logits_fn, sign: see :func:`vaal_ext.ldr_scores`.
            With "direct" the clean forward, which the loss needs anyway, serves the search too.
            With sign="max" x + r and x - r pass in one batch, which batch norm in
            training mode normalises as one.
        num_iters: steps of the search (Ip), by default VAT's usual one from a random start, and
            with method="direct" none after its first.
        seed, sample_index: key each sample's start direction; sample_index is int64 [B] on the
            device of x, by default arange(B). Change one of them from step to step.
        entropy_weight: of the mean conditional entropy, finite and >= 0. 0 leaves it out.

    Warns (on the CPU, where nothing has to be waited for) if the model gives probabilities instead
    of logits.

    Returns:
        A scalar in nats, float64 where the logits are, else float32; NaN where any logits are not
        finite.

    Raises:
        TypeError: x, sample_index or the logits of a wrong type or dtype.
        ValueError: a number out of range, wrong shapes, an empty batch, logits that do not depend
            on x through autograd, a model with inference tensors or lazy parameters.
        RuntimeError: called under torch.inference_mode(), where nothing can be differentiated, or
            inside a transform of torch.func (grad, jvp, vmap, ...), where r cannot be found; a
            TorchScript or DataParallel model, which torch.func.functional_call refuses.
    """
    refuse_transforms("vat_loss")
    if num_iters is None and method != "direct":
        num_iters = 1
    settings = SearchSettings(
        eps=eps,
        method=method,
        num_iters=num_iters,
        xi=xi,
        divergence=divergence,
        smoothing=smoothing,
        backend=backend,
        sign=sign,
    )
    require_int("seed", seed, 0, 2**63 - 1)
    require_positive("entropy_weight", entropy_weight, or_zero=True)
    check_input(x)
    if len(x) == 0:
        raise ValueError("x must hold at least one sample: the mean over none is not defined")
    # (Where torch.compile traces, it cannot be asked; the gradient would fail there all the same.)
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        raise RuntimeError("vat_loss cannot run under torch.inference_mode(): it differentiates")
    if sample_index is None:
        sample_index = torch.arange(len(x), device=x.device)
    require_sample_index(sample_index, x)
    load_backend(backend)
    learning = forward_of(with_copied_buffers(model, detached=False), logits_fn)
    searching = forward_of(with_copied_buffers(model, detached=True), logits_fn)
    x = x.detach()
    # Every call gets its own copy of the input: a model may begin with an in-place layer. And the
    # logits are copied: a model may write the next ones to the same place.
    pull = None
    if method == "direct":
        clean, pull = recorded(learning, x.clone(), kept=True)
        clean = clean.clone()
    else:
        clean = learning(x.clone()).clone()
    # (Where the answer need not be waited for.)
    if clean.is_cpu and not torch.compiler.is_compiling():
        warn_of_probabilities(model, clean)
    with torch.no_grad():
        starts = Starts(seed, sample_index)
        found = find(method)(settings, searching, x, starts, clean.detach(), pull)
    loss = divergence_at(settings, learning, clean, x, found.moved).mean()
    if entropy_weight:
        loss = loss + float(entropy_weight) * _entropy(clean).mean()
    return loss


@dataclass(frozen=True)
class VatSettings:
    """The settings of the regulariser in Eq. 3, checked when made.

    Attributes:
        weight: λ, finite and above 0.
        search: how r is found.
        decay: the share of a training, at its end, in which the learning rate falls linearly to 0,
            in [0, 1]; 0 keeps it constant. The term is another in every step, by its samples and
            directions, so at a constant rate the last weights are noisy.

    Raises:
        TypeError, ValueError: a weight or decay of a wrong type or out of its range.
    """

    weight: float
    search: SearchSettings
    decay: float = 0.0

    def __post_init__(self) -> None:
        require_positive("weight", self.weight)
        require_number("decay", self.decay)
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be in [0, 1], got {self.decay}")


class VatTerm:
    """The second term of Eq. 3 during one training: λ · vat_loss over batches of `x`.

    torch.nn's dropout layers are off in it: with a mask in every pass J would be large without any
    r, and the search would follow the masks (on digits that costs 2 points of accuracy). What
    dropout draws elsewhere in the training is then what it draws without the term.

    Args:
        settings: of the regulariser; its decay is what :func:`.training.train` does.
        x: float32 [N, ...], all samples, labelled and unlabelled, on the device of the network.
        seed: of the start directions, 0 <= seed < 2^63; whoever draws the batches may use it too.
    """

    def __init__(self, settings: VatSettings, x: Tensor, seed: int) -> None:
        self.x = x
        self.seed = seed
        self.settings = settings
        self._drawn = torch.zeros((), dtype=torch.int64, device=x.device)

    def __call__(self, model: nn.Module, batch: Tensor) -> Tensor:
        """The term, a scalar, for the positions int64 [B] in `x`.

        The start directions of each call are new ones, keyed by a running number that lives on the
        device: a replayed CUDA graph counts on where the host would not.
        """
        numbers_drawn = self._drawn + torch.arange(len(batch), device=batch.device)
        with _dropout_off(model):
            loss = vat_loss(
                model,
                self.x[batch],
                **asdict(self.settings.search),
                seed=self.seed,
                sample_index=numbers_drawn,
            )
        self._drawn += len(batch)
        return self.settings.weight * loss


@contextmanager
def _dropout_off(model: nn.Module) -> Iterator[None]:
    simple = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
    layers = (*simple, nn.AlphaDropout, nn.FeatureAlphaDropout)
    dropped = [m for m in model.modules() if isinstance(m, layers) and m.training]
    for module in dropped:
        module.training = False
    try:
        yield
    finally:
        for module in dropped:
            module.training = True


def _entropy(logits: Tensor) -> Tensor:
    """H(softmax(logits)) [B] in nats, differentiable. A class at -inf adds nothing.

    Measured from the largest logit: H = log1p(R) - Σ w·α / (1 + R) with α = logits - max, w = e^α
    of the other classes and R their sum. Both parts are >= 0 and nothing cancels on a saturated
    row, where -Σ p log p loses log p of the largest class.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    largest = logits.argmax(dim=1, keepdim=True)
    absent = logits == -torch.inf
    alpha = (logits - logits.gather(1, largest)).masked_fill(absent, 0.0)
    others = alpha.exp().masked_fill(absent, 0.0).scatter(1, largest, 0.0)
    rest = others.sum(dim=1)
    return torch.log1p(rest) - (others * alpha).sum(dim=1) / (1.0 + rest)
