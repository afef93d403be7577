"""The power iteration as VAT code in use computes it: the opponents of bench_ldr.py.

Each is written from the published description. They take a batch x [B, ...] and unit directions
u [B, ...] to start from, and give the divergence of every sample at the radius: float32 [B].

    eager           the symmetric divergence, the gradient with respect to the input alone
    vat             the PyTorch loop of many VAT repositories: F.kl_div(log q, p) with
                    reduction="batchmean", its .backward() through parameters that require grad
                    (so their gradients are computed, and then zeroed), `_l2_normalize` by view,
                    norm and 1e-8
    vat, input only the same, by torch.autograd.grad with respect to the input alone
    vat, numpy      the same with the direction normalised by NumPy on the host, first by the
                    largest element and then by the squared sum, as a library for semi-supervised
                    learning does

Foolbox has a VirtualAdversarialAttack with the same passes; it keeps the clean logits to itself and
stops at the perturbation, so that two forwards are added here to make a score. torchattacks has no
VAT (its TPGD follows the sign of a KL gradient inside a cube, which is another thing), so there is
nothing to compare with.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BOUND = 1e6  # of Foolbox's inputs: far outside, so that it clips nothing


def eager(
    model: nn.Module, x: Tensor, u: Tensor, *, xi: float, eps: float, num_iters: int
) -> Tensor:
    """Symmetric KL, autograd through two F.kl_div, norms by hand."""

    def divergence(a: Tensor, b: Tensor) -> Tensor:
        log_p, log_q = F.log_softmax(a, dim=1), F.log_softmax(b, dim=1)
        forward = F.kl_div(log_q, log_p, reduction="none", log_target=True)
        backward = F.kl_div(log_p, log_q, reduction="none", log_target=True)
        return (forward + backward).sum(1)

    with torch.no_grad():
        clean = model(x)
    for _ in range(num_iters):
        u = u.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(divergence(clean, model(x + xi * u)).sum(), u)
        norm = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
        u = gradient / norm.clamp_min(1e-12)
    with torch.no_grad():
        return divergence(clean, model(x + eps * u))


def vat(
    model: nn.Module,
    x: Tensor,
    u: Tensor,
    *,
    xi: float,
    eps: float,
    num_iters: int,
    input_only: bool = False,
    on_host: bool = False,
) -> Tensor:
    """Forward KL, batch mean; see the head of this file for the two variants."""
    normalize = normalize_by_numpy if on_host else l2_normalize
    with torch.no_grad():
        posterior = F.softmax(model(x), dim=1)
    for _ in range(num_iters):
        u = u.detach().requires_grad_()
        log_q = F.log_softmax(model(x + xi * u), dim=1)
        distance = F.kl_div(log_q, posterior, reduction="batchmean")
        if input_only:
            (gradient,) = torch.autograd.grad(distance, u)
        else:
            distance.backward()
            gradient = u.grad
            model.zero_grad()
        u = normalize(gradient)
    with torch.no_grad():
        log_q = F.log_softmax(model(x + eps * u), dim=1)
        return F.kl_div(log_q, posterior, reduction="none").sum(1)


def l2_normalize(d: Tensor) -> Tensor:
    norm = d.view(d.shape[0], -1).norm(dim=1).view(-1, *[1] * (d.ndim - 1))
    return d / (norm + 1e-8)


def normalize_by_numpy(d: Tensor) -> Tensor:
    array = d.detach().cpu().numpy()
    axes = tuple(range(1, array.ndim))
    array = array / (1e-12 + np.max(np.abs(array), axis=axes, keepdims=True))
    array = array / np.sqrt(1e-6 + np.sum(array**2, axis=axes, keepdims=True))
    return torch.from_numpy(array).to(d.device)


def foolbox(model: nn.Module, x: Tensor, xi: float, eps: float, num_iters: int) -> Tensor:
    """Foolbox's VirtualAdversarialAttack, from a start of its own, then the forward KL there."""
    perturbed, clean = foolbox_step(model, x, xi, eps, num_iters)
    with torch.no_grad():
        log_p, log_q = F.log_softmax(clean, dim=1), F.log_softmax(model(perturbed), dim=1)
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def foolbox_step(
    model: nn.Module, x: Tensor, xi: float, eps: float, num_iters: int
) -> tuple[Tensor, Tensor]:
    """x + eps·u as Foolbox finds it, and the clean logits (it wants labels, if only to count)."""
    from foolbox import PyTorchModel
    from foolbox.attacks import VirtualAdversarialAttack
    from foolbox.criteria import Misclassification

    wrapped = PyTorchModel(model, bounds=(-_BOUND, _BOUND), device=x.device)
    with torch.no_grad():
        clean = model(x)
    attack = VirtualAdversarialAttack(steps=num_iters, xi=xi)
    return attack.run(wrapped, x, Misclassification(clean.argmax(1)), epsilon=eps), clean


def foolbox_follows_the_gradient(device: torch.device) -> bool:
    """Whether Foolbox finds the one direction there is on a linear network of two classes.

    Its start is drawn inside, so its scores cannot be held against ours one by one. Here the start
    does not matter: p − q has one direction, the difference w of the two rows of weights, and the
    perturbation must be ±eps·w/‖w‖. The sum of 20 products in float32 is right to 20·2^-24.
    """
    torch.manual_seed(0)
    model = nn.Linear(20, 2, device=device).eval()
    x = torch.randn(8, 20, device=device)
    step = foolbox_step(model, x, 0.1, 2.0, 5)[0] - x
    w = (model.weight[0] - model.weight[1]).detach()
    cosine = (step @ w).abs() / (step.norm(dim=1) * w.norm())
    return bool((cosine > 1 - 1e-5).all()) and math.isclose(step[0].norm(), 2.0, rel_tol=1e-5)
