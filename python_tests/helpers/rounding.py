"""How far float32 scores may lie apart where the same products are summed in another order.

Another batch size, another processor or another instruction set sums a matrix product in another
order. The bounds here ask nothing of that order, so a test that uses them holds on any processor.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vaal_ext import reference

# Standard deviations of a rounding error that are allowed: no processor in 10^15 goes beyond.
SIGMAS = 8.0
# Of two evaluations, each with an error of its own.
_TWICE = SIGMAS * 2**0.5


def logits_apart(layers: nn.Sequential, x: Tensor) -> Tensor:
    """[B]: how far two evaluations of the logits may lie apart, as a 2-norm.

    `layers` are Flatten, Linear, Tanh and Dropout (in eval mode), of the dtype whose rounding
    counts; x [B, ...]. In a sum of n products each partial sum is rounded to half a unit in its
    last place, upwards or downwards as chance has it. Partial sums are about as large as the root
    of the sum of the products' squares, so the sum is off by sqrt(n)/2 units of that, one standard
    deviation, in whatever order it is taken. What came before passes on through the weights as
    independent errors do, and through a tanh by its slope; a tanh itself is right to two units in
    the last place of 1. (The bound for the worst case, n units of the sum of absolute values, is a
    thousand times as large: no test could fail by it.)
    """
    *_, (_, _, variance) = _evaluated(layers, x)
    return _TWICE * variance.sum(1).sqrt()


def _evaluated(
    layers: nn.Sequential, x: Tensor
) -> Iterator[tuple[nn.Module | None, Tensor, Tensor]]:
    """Yields each layer with what comes in and the variance of its rounding, float64 [B, ...] both;
    at last None with the logits."""
    unit = torch.finfo(next(layers.parameters()).dtype).eps
    h = x.detach().double()
    variance = torch.zeros_like(h)
    for layer in layers:
        yield layer, h, variance
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
            squares = h.square() @ weight.square().T + bias.square()
            own = (layer.in_features + 1) * squares * (unit / 2) ** 2
            variance = variance @ weight.square().T + own
            h = h @ weight.T + bias
        elif isinstance(layer, nn.Tanh):
            h = h.tanh()
            variance = variance * (1 - h.square()).square() + (2 * unit) ** 2
        elif isinstance(layer, nn.Flatten):
            variance, h = variance.flatten(1), h.flatten(1)
        else:
            assert isinstance(layer, nn.Dropout), layer
    yield None, h, variance


def _of_gradient(layers: nn.Sequential, x: Tensor, slope: Tensor) -> Tensor:
    """float64 [B, D]: the variance of the rounding in the gradient by x of the sum of slope·logits,
    slope [B, C].

    As for the logits: a product with the transposed weights sums over the features that come out;
    a tanh multiplies by 1 - h², which is off by a unit of 1 at most and by 2h times what h is off.
    """
    unit = torch.finfo(next(layers.parameters()).dtype).eps
    g = slope.double()
    variance = torch.zeros_like(g)
    *passed, _ = _evaluated(layers, x)
    for layer, h, forward in reversed(passed):
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach().double()
            own = layer.out_features * (g.square() @ weight.square()) * (unit / 2) ** 2
            variance = variance @ weight.square() + own
            g = g @ weight
        elif isinstance(layer, nn.Tanh):
            after = h.tanh()
            rise = 1 - after.square()
            of_after = forward * rise.square() + (2 * unit) ** 2
            own = unit**2 + (2 * after).square() * of_after
            variance = variance * rise.square() + g.square() * own
            g = g * rise
    return variance


def direct_scores_apart(layers: nn.Sequential, x: Tensor, *, eps: float) -> Tensor:
    """[B]: the share of its LDR by which a sample's score by method="direct" may differ.

    Rounding comes in at four places: at the logits of x, at the gradient Jᵀw, at x + r and at the
    logits there. LDR as a function of these four errors is differentiated in float64, w as the
    eigenvector that it is; their variances pass on by the squares of the derivatives. No step is
    taken back and divided by its length, so that nothing magnifies an error as in `scores_apart`.
    J itself is a sum of C terms >= 0, each of some ten operations, of a unit each at most.
    """
    unit = torch.finfo(next(layers.parameters()).dtype).eps
    model = copy.deepcopy(layers).double().eval()
    x = x.detach().double()
    point = x.clone().requires_grad_()
    logits = model(point)
    columns = [torch.autograd.grad(z.sum(), point, retain_graph=True)[0] for z in logits.T]
    jacobian = torch.stack([column.flatten(1) for column in columns], 1)

    clean = logits.detach().requires_grad_()
    p = clean.softmax(1)
    w = torch.linalg.eigh(torch.diag_embed(p) - p[:, :, None] * p[:, None, :])[1][:, :, -1]
    w = w * -w.gather(1, clean.argmax(1, keepdim=True)).sign()  # away from the pseudo label
    g = (w[:, None] @ jacobian).squeeze(1)
    g.retain_grad()
    moved = x + (eps * nn.functional.normalize(g, dim=1)).view_as(x)
    moved.retain_grad()
    there = model(moved)
    there.retain_grad()
    ldr = reference.symmetric_kl(clean, there)
    ldr.sum().backward()

    *_, (_, _, at_clean) = _evaluated(layers, x)
    *_, (_, _, at_there) = _evaluated(layers, moved)
    at_moved = (unit / 2 * moved.detach()).square()
    places = (clean, at_clean), (g, _of_gradient(layers, x, w.detach())), (there, at_there)
    variance = sum((z.grad.square() * own).sum(1) for z, own in places)
    variance = variance + (moved.grad.square() * at_moved).flatten(1).sum(1)
    own = 2 * (10 + clean.shape[1]) * unit
    return _TWICE * variance.sqrt() / ldr.detach() + own


def scores_apart(
    layers: nn.Sequential, x: Tensor, ldr: Tensor, *, xi: float, eps: float, num_iters: int,
    method: str = "finite-difference", seed: int = 0, sample_index: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """[B]: the share of its LDR by which a sample's score may differ.

    For the finite-difference search with one sign; `ldr` [B] are the scores themselves. J behaves
    as |change of the logits|^2, so `noise`/sqrt(J) is what a step's gradient turns by: most at the
    first, where J is least. The power iteration passes an error on by at most 1/cos(start, limit)
    in all. J changes by twice the angle, and by twice noise/sqrt(J) from the last forward.
    The backward's own rounding is as the forward's, but relative to a gradient and not to J: it
    is less than what the first term says, and doubles it at most.
    """
    assert method == "finite-difference"
    model = copy.deepcopy(layers).double().eval()
    x = x.detach().double()
    index = torch.arange(len(x)) if sample_index is None else torch.as_tensor(sample_index)
    start = reference.random_perturb(torch.zeros_like(x), 1.0, seed=seed, sample_index=index)
    clean = model(x).detach()
    u, first = start, None
    for _ in range(num_iters):
        point = (x + xi * u).requires_grad_()
        logits = model(point)
        value, slope = reference.symmetric_kl_direction(clean, logits.detach())
        first = value if first is None else first
        (gradient,) = torch.autograd.grad(logits, point, slope)
        u = reference.perturb(torch.zeros_like(x), gradient, 1.0)
    noise = torch.maximum(logits_apart(layers, x), logits_apart(layers, x + eps * u))
    cosine = torch.cosine_similarity(start.flatten(1), u.flatten(1)).abs()
    search = 2 * 2 * num_iters * noise / first.sqrt() / cosine
    return search + 2 * noise / ldr.double().sqrt()
