"""Local Distributional Roughness (LDR): how far the posterior moves with the perturbation found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from vaal_ext.backend import load_backend
from vaal_ext.checks import index_array, refuse_transforms, require_int, warn_caller
from vaal_ext.network.logits import LogitsFn, check_input, forward_of, warn_of_probabilities
from vaal_ext.network.state import Model, borrowed, unwrapped
from vaal_ext.perturbation import direct, fisher, power_iteration
from vaal_ext.perturbation.measure import Measured
from vaal_ext.perturbation.search import Find, SearchSettings, Starts

__all__ = ["LDR", "divergence_at", "find", "ldr_scores", "warn_of_zeros"]


def find(method: str) -> Find:
    """The search of that name, one of those of :class:`SearchSettings`."""
    searches: dict[str, Find] = {
        "direct": direct.find,
        "finite-difference": power_iteration.find,
        "fisher": fisher.find,
    }
    return searches[method]


@dataclass(frozen=True)
class LDR:
    """The measure LDR (Eq. 4 of the paper): J(f(x), f(x + r)), r found by `search`.

    Attributes:
        search: how r is found.
        seed: of the random starts, 0 <= seed < 2^63.

    Raises:
        TypeError, ValueError: a seed that is no such int.
    """

    search: SearchSettings
    seed: int = 0

    column: ClassVar[str | None] = "ldr"
    label: ClassVar[str] = "LDR"

    def __post_init__(self) -> None:
        require_int("seed", self.seed, 0, 2**63 - 1)

    @property
    def settings(self) -> dict[str, Any]:
        """What LDR depends on, see :class:`vaal_ext.perturbation.measure.Measure`."""
        return asdict(self.search) | {"seed": self.seed}

    def run(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        index: Tensor,
        mask: Tensor | None = None,
    ) -> Measured:
        """See :class:`vaal_ext.perturbation.measure.Measure`.

        With n = num_iters: n + 2 calls of `forward` and n + 1 gradients with respect to the input
        alone (from a random start n + 2 calls and n gradients, with method="fisher" 2 and 2·n + 1).
        The KL itself is never recorded: its gradient with respect to the logits comes from one op,
        scaled per row so that half types do not underflow (only its direction matters). Nothing
        here waits for the device.
        """
        # Both posteriors come from one attention kernel: a difference in rounding between two
        # kernels would count as J.
        exact = self.search.method == "fisher"
        with torch.no_grad(), sdpa_kernel(fisher.ATTENTION) if exact else nullcontext():
            starts = Starts(self.seed, index, mask)
            found = find(self.search.method)(self.search, forward, x, starts)
            ldr = divergence_at(self.search, forward, found.clean, x, found.moved)
            return Measured(found.clean, *found.judged(ldr))


def divergence_at(
    settings: SearchSettings,
    forward: Callable[[Tensor], Tensor],
    clean: Tensor,
    x: Tensor,
    moved: Tensor,
) -> Tensor:
    """A[B]: the divergence from `clean` [B, C] at moved = x + r; with sign="max" the larger of
    those at x + r and x - r, which go through the network in one batch of twice the size."""
    both_signs = settings.sign == "max"
    if both_signs:
        moved, clean = torch.cat([moved, x - (moved - x)]), clean.repeat(2, 1)
    logits = forward(moved)
    power_iteration.require_same_classes(clean, logits)
    ops = load_backend(settings.backend)
    value: Tensor = ops.symmetric_kl(clean, logits, **settings.divergence_options)
    return value.view(2, -1).amax(0) if both_signs else value


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
        seed, sample_index: fix the random start of each sample ("direct" has none), so that its
            score does not depend on the batch it is in, except by rounding (see `sign`).
            sample_index is int64 [B], by default arange(B).
        backend: "fused", or "reference" for plain PyTorch.
        logits_fn: takes the logits out of the model's output.
        sign: r and -r are alike to the Hessian, not to J: "paper" takes J at x + r, with the sign
            that the search led to, "max" the larger of J at x + r and x - r (one more forward).
            With "direct" the sign is that which takes from the pseudo label; on MNIST "max" finds
            no more. A random start nearly at right angles to the worst direction leaves the sign to
            rounding: of 2,000 MNIST images (the paper's CNN, 300 labels, xi 0.01, eps 1, 8
            iterations, logits off by up to 2 ulps at random, twice) 5 and 6 came out at the other
            side, where J is another by a factor of 440 at the median; with "max" none moved by more
            than 20 %.

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
    measure = LDR(settings, seed)
    model = unwrapped(model)
    forward = forward_of(model, logits_fn)
    check_input(x)
    load_backend(backend)
    if sample_index is None:
        index = torch.arange(len(x), device=x.device)
    else:
        index = torch.from_numpy(index_array(sample_index, len(x)))
    if len(x) == 0:
        return x.new_zeros(0, dtype=torch.promote_types(x.dtype, torch.float32))
    with borrowed(model, x.device):
        measured = measure.run(forward, x.detach(), index.to(x.device))
    warn_of_probabilities(model, measured.logits)
    return cast(Tensor, measured.value)


def warn_of_zeros(zeros: int, flat: int, count: int, search: SearchSettings) -> None:
    """Warns of samples whose gradient was 0, and of a perturbation that is lost in rounding."""
    if flat:
        lost = ", or the step xi was so small that x + xi*u rounds to x"
        warn_caller(
            f"LDR is 0 for {flat} of {count} samples because a gradient was exactly 0 there: the "
            "network is flat around them" + (lost if search.method == "finite-difference" else "")
        )
    elif 0 < count == zeros:
        warn_caller(
            f"LDR is 0 for all {count} samples, although no gradient is: eps={search.eps:g} may be "
            "so small that x + r rounds to x"
        )
